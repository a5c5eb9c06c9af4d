output "node_pool_id" {
  description = "The node pool, as CLUSTER:POOL."
  value       = alicloud_cs_kubernetes_node_pool.spot.id
}
