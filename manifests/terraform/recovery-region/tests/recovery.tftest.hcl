mock_provider "alicloud" {}

# What manifests/examples/another-region applies by hand, for the same names.
variables {
  bucket           = "backups-shanghai"
  location         = "oss-cn-shanghai"
  rrsa             = { oidc_provider_arn = "acs:ram::42:oidc-provider/ack-rrsa-c2", oidc_issuer_url = "https://issuer.example/c2" }
  service_accounts = { writer = ["shop/default"], drill = ["shop/drill"], janitor = ["jobs/expire"] }
  cluster_id       = "c2"
  node_pool = {
    vswitch_ids    = ["vsw-c"]
    instance_types = [{ type = "ecs.g7.xlarge", price_limit = 0.9 }, { type = "ecs.g8i.xlarge", price_limit = 1.1 }]
  }
  namespaces = ["shop"]
}

run "databases_find_the_replica" {
  assert {
    condition     = yamldecode(output.namespaces) == yamldecode(file("../../examples/another-region/protect.yaml"))
    error_message = "the namespace is not that of examples/another-region:\n${output.namespaces}"
  }
  assert {
    condition     = output.replica.bucket == "backups-shanghai" && output.replica.location == "oss-cn-shanghai"
    error_message = "the first region would copy to somewhere else"
  }
}

run "its_own_roles" {
  assert {
    condition     = output.roles == tomap({ writer = "outrider-recovery-writer", drill = "outrider-recovery-drill", janitor = "outrider-recovery-janitor" })
    error_message = "roles: ${jsonencode(output.roles)}"
  }
}

run "names_of_the_first_region_are_refused" {
  command = plan
  variables {
    name = "outrider"
  }
  expect_failures = [var.name]
}

run "without_a_writer_nothing_goes_on" {
  command = plan
  variables {
    service_accounts = { writer = [] }
  }
  expect_failures = [var.service_accounts]
}
