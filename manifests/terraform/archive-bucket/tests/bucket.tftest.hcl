mock_provider "alicloud" {}

variables {
  bucket = "acme-archives"
}

run "as_outrider_needs_it" {
  assert {
    condition     = length(alicloud_oss_bucket.archive.versioning) == 0
    error_message = "with versioning OSS does not keep a second writer out, and Outrider refuses to start"
  }
  assert {
    condition     = alicloud_oss_bucket.archive.storage_class == "Standard"
    error_message = "small objects and early deletion cost extra in any other class"
  }
  assert {
    condition     = one(alicloud_oss_bucket.archive.server_side_encryption_rule).sse_algorithm == "AES256"
    error_message = "not encrypted"
  }
  assert {
    condition     = !alicloud_oss_bucket.archive.force_destroy
    error_message = "destroy would take the archives with it"
  }
}

run "not_public" {
  assert {
    condition     = alicloud_oss_bucket_public_access_block.archive.block_public_access && alicloud_oss_bucket_public_access_block.archive.bucket == "acme-archives"
    error_message = "public access is not blocked"
  }
  assert {
    condition     = alicloud_oss_bucket_acl.archive.acl == "private"
    error_message = "the ACL is ${alicloud_oss_bucket_acl.archive.acl}"
  }
}

# A rule that expires or moves things by age would break the way from a snapshot to its WAL.
run "only_uploads_go_by_age" {
  assert {
    condition = alltrue([for r in alicloud_oss_bucket.archive.lifecycle_rule :
      length(r.expiration) == 0 && length(r.transitions) == 0 && length(r.noncurrent_version_expiration) == 0 && length(r.abort_multipart_upload) == 1
    ])
    error_message = "a lifecycle rule does something else than abort uploads"
  }
  assert {
    condition     = [for r in alicloud_oss_bucket.archive.lifecycle_rule : [r.prefix, r.enabled, one(r.abort_multipart_upload).days]] == [["prod/", true, 7]]
    error_message = "unfinished uploads stay for ever"
  }
}

run "snapshots_are_not_overwritten" {
  assert {
    condition     = length(alicloud_oss_bucket_overwrite_config.archive) == 1 && alltrue([for r in alicloud_oss_bucket_overwrite_config.archive[0].rule : r.action == "forbid" && r.prefix == "prod/" && length(r.principals) == 0])
    error_message = "somebody may overwrite"
  }
  # What Outrider itself replaces must stay possible: the last segment of a clean stop, chunks, heartbeats, receipts.
  assert {
    condition = alltrue(flatten([for r in alicloud_oss_bucket_overwrite_config.archive[0].rule : [for key in [
      "prod/shop/orders/wal_005/000000010000000000000003.zst",
      "prod/shop/orders/outrider/tail/000000010000000000000003/0000000001/0000000003000000-0000000003000100.zst",
      "prod/shop/orders/outrider/heartbeats/0000000001.json",
      "prod/shop/orders/outrider/receipts/0000000001.json",
    ] : !endswith(key, r.suffix)]]))
    error_message = "something that is replaced in normal operation is protected"
  }
  assert {
    condition = alltrue([for key in [
      "prod/shop/orders/basebackups_005/base_000000010000000000000002/tar_partitions/part_001.tar.zst",
      "prod/shop/orders/basebackups_005/base_000000010000000000000002_backup_stop_sentinel.json",
      "prod/shop/orders/basebackups_005/base_000000010000000000000002/outrider.json",
    ] : anytrue([for r in alicloud_oss_bucket_overwrite_config.archive[0].rule : endswith(key, r.suffix)])])
    error_message = "a part of a snapshot is not protected"
  }
}

run "alone" {
  assert {
    condition     = length(alicloud_oss_bucket_replication.archive) == 0 && length(module.roles) == 0 && output.roles == {}
    error_message = "replication or roles nobody asked for"
  }
}

run "replication_copies_and_never_deletes" {
  variables {
    replica = { bucket = "acme-archives-recovery", location = "oss-cn-shanghai" }
  }
  assert {
    condition     = alicloud_oss_bucket_replication.archive[0].action == "PUT"
    error_message = "what is deleted here would be deleted there"
  }
  assert {
    condition     = alicloud_oss_bucket_replication.archive[0].historical_object_replication == "enabled"
    error_message = "what is there already would not be copied, and a snapshot without it is none"
  }
  assert {
    condition = (
      one(one(alicloud_oss_bucket_replication.archive[0].prefix_set).prefixes) == "prod/" &&
      one(alicloud_oss_bucket_replication.archive[0].destination).bucket == "acme-archives-recovery" &&
      one(alicloud_oss_bucket_replication.archive[0].destination).location == "oss-cn-shanghai"
    )
    error_message = "copied to somewhere else, or not everything"
  }
}

run "replication_with_a_key_needs_what_oss_needs" {
  command = plan
  variables {
    kms_key_id = "k-1"
    replica    = { bucket = "acme-archives-recovery", location = "oss-cn-shanghai" }
  }
  expect_failures = [alicloud_oss_bucket_replication.archive]
}

run "replication_with_a_key" {
  variables {
    kms_key_id = "k-1"
    replica    = { bucket = "acme-archives-recovery", location = "oss-cn-shanghai", sync_role = "copies", kms_key_id = "k-2", time_control = true }
  }
  assert {
    condition = (
      one(alicloud_oss_bucket.archive.server_side_encryption_rule).sse_algorithm == "KMS" &&
      one(alicloud_oss_bucket.archive.server_side_encryption_rule).kms_master_key_id == "k-1" &&
      one(alicloud_oss_bucket_replication.archive[0].encryption_configuration).replica_kms_key_id == "k-2" &&
      one(one(alicloud_oss_bucket_replication.archive[0].source_selection_criteria).sse_kms_encrypted_objects).status == "Enabled" &&
      one(alicloud_oss_bucket_replication.archive[0].rtc).enabled
    )
    error_message = "what is encrypted would not be copied"
  }
}

run "not_onto_itself" {
  command = plan
  variables {
    replica = { bucket = "acme-archives", location = "oss-cn-hangzhou" }
  }
  expect_failures = [alicloud_oss_bucket_replication.archive]
}

run "roles" {
  variables {
    rrsa             = { oidc_provider_arn = "acs:ram::42:oidc-provider/ack-rrsa-c1", oidc_issuer_url = "https://issuer.example/c1" }
    service_accounts = { writer = ["shop/default"], reader = ["clones/default"], drill = ["shop/drill"], janitor = ["jobs/expire"] }
  }
  assert {
    condition     = output.roles == tomap({ writer = "outrider-writer", reader = "outrider-reader", drill = "outrider-drill", janitor = "outrider-janitor" }) && output.archive == "oss://acme-archives/prod"
    error_message = "${jsonencode(output.roles)} ${output.archive}"
  }
}
