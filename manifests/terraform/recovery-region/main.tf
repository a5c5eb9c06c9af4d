# What stands ready in another region: the replica of the bucket, the rights on it for the cluster there, and nodes. The
# provider given to this module is that of the other region.

# Not forbid_overwrite: the copying may put an object a second time.
module "bucket" {
  source = "../archive-bucket"

  bucket           = var.bucket
  prefix           = var.prefix
  name             = var.name
  redundancy_type  = var.redundancy_type
  kms_key_id       = var.kms_key_id
  forbid_overwrite = false
  rrsa             = var.rrsa
  service_accounts = var.service_accounts
  tags             = var.tags
}

module "nodes" {
  source = "../spot-node-pool"

  cluster_id         = var.cluster_id
  name               = var.node_pool.name
  vswitch_ids        = var.node_pool.vswitch_ids
  instance_types     = var.node_pool.instance_types
  security_group_ids = var.node_pool.security_group_ids
  disk               = var.node_pool.disk
  # None while all is well. Databases come with pods, and pods have the autoscaler fetch nodes.
  autoscaling = { min = 0, max = var.node_pool.max_size }
}

locals {
  endpoint = "${var.location}-internal.aliyuncs.com"
  region   = trimprefix(var.location, "oss-")

  # The same that manifests/examples/another-region gives the namespace of one database.
  annotations = {
    "outrider.dev/archive"      = module.bucket.archive
    "outrider.dev/oss-region"   = local.region
    "outrider.dev/oss-endpoint" = local.endpoint
  }
}
