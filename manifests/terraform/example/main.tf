# Everything together: databases on spot nodes in Hangzhou, and a second region that waits in Shanghai. The clusters, their
# networks and their autoscalers are yours.
#
#   tofu init && tofu apply
#   tofu output -raw recovery_namespaces   # what to apply in the second cluster when the first region is lost
provider "alicloud" {
  region = "cn-hangzhou"
}

provider "alicloud" {
  alias  = "recovery"
  region = "cn-shanghai"
}

locals {
  accounts = {
    writer  = ["shop/default", "metrics/default"]
    reader  = ["clones/default"]
    drill   = ["shop/drill", "metrics/drill"]
    janitor = ["outrider-jobs/expire"]
  }
  # An hour of each as pay-as-you-go is a sensible limit: look it up for your region.
  instance_types = [
    { type = "ecs.g7.xlarge", price_limit = 1.0 },
    { type = "ecs.g8i.xlarge", price_limit = 1.0 },
    { type = "ecs.g8a.xlarge", price_limit = 1.0 },
  ]
}

module "nodes" {
  source = "../spot-node-pool"

  cluster_id     = var.cluster.id
  vswitch_ids    = var.cluster.vswitch_ids
  instance_types = local.instance_types
}

module "archive" {
  source = "../archive-bucket"

  bucket           = var.bucket
  rrsa             = var.cluster.rrsa
  service_accounts = local.accounts
  replica          = { bucket = module.recovery.replica.bucket, location = module.recovery.replica.location }
}

module "recovery" {
  source    = "../recovery-region"
  providers = { alicloud = alicloud.recovery }

  bucket           = "${var.bucket}-recovery"
  location         = "oss-cn-shanghai"
  rrsa             = var.recovery_cluster.rrsa
  service_accounts = local.accounts
  cluster_id       = var.recovery_cluster.id
  node_pool        = { vswitch_ids = var.recovery_cluster.vswitch_ids, instance_types = local.instance_types }
  namespaces       = ["shop", "metrics"]
}

variable "bucket" {
  description = "The name of the bucket; the replica is called BUCKET-recovery."
  type        = string
}

variable "cluster" {
  description = "The cluster in Hangzhou. rrsa is what its rrsa_metadata says."
  type = object({
    id          = string
    vswitch_ids = list(string)
    rrsa        = object({ oidc_provider_arn = string, oidc_issuer_url = string })
  })
}

variable "recovery_cluster" {
  description = "The cluster in Shanghai."
  type = object({
    id          = string
    vswitch_ids = list(string)
    rrsa        = object({ oidc_provider_arn = string, oidc_issuer_url = string })
  })
}

output "archive" {
  description = "For the configuration of the webhook in Hangzhou."
  value       = { archive = module.archive.archive, credentials = "rrsa:${module.archive.roles.writer}" }
}

output "recovery_namespaces" {
  description = "For the cluster in Shanghai, when Hangzhou is lost."
  value       = module.recovery.namespaces
}
