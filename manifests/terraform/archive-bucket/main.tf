# The bucket of the archives. There is deliberately no versioning here: OSS ignores on versioned buckets that an object may be
# created only once, and Outrider then refuses to start, because nothing else keeps a second writer out.
resource "alicloud_oss_bucket" "archive" {
  bucket          = var.bucket
  storage_class   = "Standard"
  redundancy_type = var.redundancy_type
  tags            = var.tags

  # OSS does not delete a bucket that holds something. This keeps it so.
  force_destroy = false

  server_side_encryption_rule {
    sse_algorithm     = var.kms_key_id == null ? "AES256" : "KMS"
    kms_master_key_id = var.kms_key_id
  }

  # What an upload left behind that was given up by a machine that is gone. Nothing else here goes by age: which snapshot and
  # which WAL another one needs is known to Outrider's retention only.
  lifecycle_rule {
    id      = "abort-uploads"
    prefix  = "${var.prefix}/"
    enabled = true

    abort_multipart_upload {
      days = var.abort_uploads_after_days
    }
  }

  lifecycle {
    # Managed by the resource below.
    ignore_changes = [acl]
  }
}

resource "alicloud_oss_bucket_acl" "archive" {
  bucket = alicloud_oss_bucket.archive.bucket
  acl    = "private"
}

resource "alicloud_oss_bucket_public_access_block" "archive" {
  bucket              = alicloud_oss_bucket.archive.bucket
  block_public_access = true
}

# What is in a snapshot and says what is in it is created once, always. This holds also against who may write and does not ask
# OSS to forbid it. WAL is not in it: the zero-padded last segment of a clean stop is replaced by the whole one later.
resource "alicloud_oss_bucket_overwrite_config" "archive" {
  count  = var.forbid_overwrite ? 1 : 0
  bucket = alicloud_oss_bucket.archive.bucket

  dynamic "rule" {
    for_each = local.created_once
    content {
      id     = "created-once-${rule.key + 1}"
      action = "forbid"
      prefix = "${var.prefix}/"
      suffix = rule.value
    }
  }
}

locals {
  created_once = [".tar.zst", "_backup_stop_sentinel.json", "/metadata.json", "/files_metadata.json", "/outrider.json", "/outrider/cluster.json"]
}

# Only what is put is copied, never a deletion: who deletes here, or has it expire, does not delete there. The copy only grows
# therefore, until a retention runs there too.
resource "alicloud_oss_bucket_replication" "archive" {
  count = var.replica == null ? 0 : 1

  bucket                        = alicloud_oss_bucket.archive.bucket
  action                        = "PUT"
  historical_object_replication = "enabled"
  sync_role                     = var.replica.sync_role

  prefix_set {
    prefixes = ["${var.prefix}/"]
  }

  destination {
    bucket   = var.replica.bucket
    location = var.replica.location
  }

  dynamic "source_selection_criteria" {
    for_each = var.kms_key_id == null ? [] : [var.kms_key_id]
    content {
      sse_kms_encrypted_objects {
        status = "Enabled"
      }
    }
  }

  dynamic "encryption_configuration" {
    for_each = var.replica.kms_key_id == null ? [] : [var.replica.kms_key_id]
    content {
      replica_kms_key_id = encryption_configuration.value
    }
  }

  dynamic "rtc" {
    for_each = var.replica.time_control ? [true] : []
    content {
      enabled = true
    }
  }

  lifecycle {
    precondition {
      condition     = var.kms_key_id == null || (var.replica.sync_role != null && var.replica.kms_key_id != null)
      error_message = "What is encrypted with a key of your own is copied only with replica.sync_role and replica.kms_key_id, a key in the other region; without them OSS would leave it out silently."
    }
    precondition {
      condition     = var.replica.bucket != var.bucket
      error_message = "The replica is this very bucket."
    }
  }
}

module "roles" {
  source = "../roles"
  count  = var.rrsa == null ? 0 : 1

  name             = var.name
  bucket           = alicloud_oss_bucket.archive.bucket
  prefix           = var.prefix
  rrsa             = var.rrsa
  service_accounts = var.service_accounts
  kms_key_id       = var.kms_key_id
}
