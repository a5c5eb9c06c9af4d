# Nodes that cost a fraction and may be taken away with five minutes' notice.
locals {
  types = [for t in var.instance_types : t.type]
  fixed = var.autoscaling == null
}

resource "alicloud_cs_kubernetes_node_pool" "spot" {
  cluster_id         = var.cluster_id
  node_pool_name     = var.name
  vswitch_ids        = var.vswitch_ids
  instance_types     = local.types
  security_group_ids = var.security_group_ids
  image_type         = var.image_type

  spot_strategy = "SpotWithPriceLimit"
  dynamic "spot_price_limit" {
    for_each = var.instance_types
    content {
      instance_type = spot_price_limit.value.type
      price_limit   = tostring(spot_price_limit.value.price_limit)
    }
  }

  # The cheapest of several types and zones. They seldom run out, or rise, all at once.
  multi_az_policy     = "COST_OPTIMIZED"
  spot_instance_pools = min(length(local.types), 10)
  # The next node is ordered when the notice comes, not when the old one is gone.
  spot_instance_remedy = true
  # A database that waits for a cheap node is a database that is down.
  compensate_with_on_demand                = var.compensate_with_on_demand
  on_demand_base_capacity                  = var.on_demand_base_capacity
  on_demand_percentage_above_base_capacity = 0

  desired_size = local.fixed ? var.size : null
  dynamic "scaling_config" {
    for_each = local.fixed ? [] : [var.autoscaling]
    content {
      enable   = true
      type     = "spot"
      min_size = scaling_config.value.min
      max_size = scaling_config.value.max
    }
  }

  # Databases without a volume live here, restores included: data and WAL have to fit at the same time.
  system_disk_category  = var.disk.category
  system_disk_size      = var.disk.size_gib
  system_disk_encrypted = true

  # The sidecar takes a token first where one is to be had, so the hardened mode costs nothing.
  instance_metadata_options {
    http_tokens = "required"
  }

  # The cloud controller manager labels spot nodes itself, and this is what Outrider looks for; a label of one's own is for
  # scheduling.
  dynamic "labels" {
    for_each = var.labels
    content {
      key   = labels.key
      value = labels.value
    }
  }
  dynamic "taints" {
    for_each = var.taints
    content {
      key    = taints.value.key
      value  = taints.value.value
      effect = taints.value.effect
    }
  }

  # Repair is for nodes that break. An upgrade that drains nodes at a time of its own choosing is not wanted here.
  management {
    enable          = true
    auto_repair     = true
    auto_upgrade    = false
    max_unavailable = 1
  }
}
