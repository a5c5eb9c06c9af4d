output "replica" {
  description = "For archive-bucket's replica, in the first region."
  value = {
    bucket     = module.bucket.bucket
    location   = var.location
    kms_key_id = var.kms_key_id
  }
}

output "roles" {
  description = "The roles by what they are for: credentials: rrsa:ROLE in the configuration of this region's webhook."
  value       = module.bucket.roles
}

output "node_pool_id" {
  description = "The node pool, as CLUSTER:POOL."
  value       = module.nodes.node_pool_id
}

output "namespaces" {
  description = "The namespaces with what points their databases at the replica, for kubectl apply -f -."
  value = join("---\n", [for ns in var.namespaces : yamlencode({
    apiVersion = "v1"
    kind       = "Namespace"
    metadata = {
      name        = ns
      labels      = { "outrider.dev/protect" = "enabled" }
      annotations = local.annotations
    }
  })])
}
