mock_provider "alicloud" {}

variables {
  cluster_id  = "c1"
  vswitch_ids = ["vsw-a", "vsw-b"]
  instance_types = [
    { type = "ecs.g7.xlarge", price_limit = 0.9 },
    { type = "ecs.g8i.xlarge", price_limit = 1.1 },
  ]
}

run "spot_with_limits" {
  assert {
    condition     = alicloud_cs_kubernetes_node_pool.spot.spot_strategy == "SpotWithPriceLimit"
    error_message = "nodes without a limit to their price"
  }
  assert {
    condition     = { for l in alicloud_cs_kubernetes_node_pool.spot.spot_price_limit : l.instance_type => l.price_limit } == { "ecs.g7.xlarge" = "0.9", "ecs.g8i.xlarge" = "1.1" }
    error_message = "not every type has its limit"
  }
  assert {
    condition     = alicloud_cs_kubernetes_node_pool.spot.instance_types == tolist(["ecs.g7.xlarge", "ecs.g8i.xlarge"]) && alicloud_cs_kubernetes_node_pool.spot.spot_instance_pools == 2
    error_message = "not all types are used"
  }
}

run "replaced_at_the_notice" {
  assert {
    condition     = alicloud_cs_kubernetes_node_pool.spot.spot_instance_remedy && alicloud_cs_kubernetes_node_pool.spot.compensate_with_on_demand
    error_message = "the next node comes late, or never"
  }
  # The provider's documentation says that compensating works with this policy only.
  assert {
    condition     = alicloud_cs_kubernetes_node_pool.spot.multi_az_policy == "COST_OPTIMIZED"
    error_message = "compensate_with_on_demand would have no effect"
  }
}

run "labelled_encrypted_and_hardened" {
  assert {
    condition     = { for l in alicloud_cs_kubernetes_node_pool.spot.labels : l.key => l.value } == { "outrider.dev/pool" = "spot" } && length(alicloud_cs_kubernetes_node_pool.spot.taints) == 0
    error_message = "labels or taints differ"
  }
  assert {
    condition     = alicloud_cs_kubernetes_node_pool.spot.system_disk_encrypted && one(alicloud_cs_kubernetes_node_pool.spot.instance_metadata_options).http_tokens == "required"
    error_message = "a plain disk, or role keys for whoever can send a GET"
  }
  assert {
    condition     = alicloud_cs_kubernetes_node_pool.spot.desired_size == "2" && length(alicloud_cs_kubernetes_node_pool.spot.scaling_config) == 0
    error_message = "size"
  }
}

run "autoscaling" {
  variables {
    autoscaling = { min = 0, max = 5 }
    taints      = [{ key = "spot" }]
  }
  assert {
    condition = (
      one(alicloud_cs_kubernetes_node_pool.spot.scaling_config).type == "spot" &&
      one(alicloud_cs_kubernetes_node_pool.spot.scaling_config).min_size == 0 &&
      one(alicloud_cs_kubernetes_node_pool.spot.scaling_config).max_size == 5
    )
    error_message = "scaling"
  }
  # The form that spotNodes in the webhook's configuration gives as an example.
  assert {
    condition     = [for t in alicloud_cs_kubernetes_node_pool.spot.taints : "${t.key}=${t.value}:${t.effect}"] == ["spot=true:NoSchedule"]
    error_message = "taint"
  }
}

run "one_type_is_refused" {
  command = plan
  variables {
    instance_types = [{ type = "ecs.g7.xlarge", price_limit = 0.9 }]
  }
  expect_failures = [var.instance_types]
}

run "no_limit_is_refused" {
  command = plan
  variables {
    instance_types = [{ type = "ecs.g7.xlarge", price_limit = 0.9 }, { type = "ecs.g8i.xlarge", price_limit = 0 }]
  }
  expect_failures = [var.instance_types]
}
