variable "bucket" {
  description = "The name of the replica, one in the whole of OSS."
  type        = string
  nullable    = false
}

variable "location" {
  description = "The region of the replica as OSS names it, such as oss-cn-shanghai: the one of the provider given to this module."
  type        = string
  nullable    = false

  validation {
    condition     = startswith(var.location, "oss-")
    error_message = "Expected oss-REGION, such as oss-cn-shanghai."
  }
}

variable "prefix" {
  description = "As in the first region: databases find their archives by namespace and name below it."
  type        = string
  default     = "prod"
  nullable    = false
}

variable "name" {
  description = "What the names of the roles here begin with; those of the first region are taken."
  type        = string
  default     = "outrider-recovery"
  nullable    = false

  validation {
    condition     = var.name != "outrider"
    error_message = "The roles of the first region have this name, and RAM knows no regions."
  }
}

variable "redundancy_type" {
  description = "LRS, as this is the second copy. ZRS if databases are to stay here."
  type        = string
  default     = "LRS"
  nullable    = false
}

variable "kms_key_id" {
  description = "A key of your own in this region, if the first bucket has one."
  type        = string
  default     = null
}

variable "rrsa" {
  description = "Where the tokens of this region's cluster come from: rrsa_metadata of alicloud_cs_managed_kubernetes."
  type = object({
    oidc_provider_arn = string
    oidc_issuer_url   = string
  })
  nullable = false
}

variable "service_accounts" {
  description = "As in the first region. They need not exist yet. The janitor's is for the retention of the replica."
  type = object({
    writer  = list(string)
    reader  = optional(list(string), [])
    drill   = optional(list(string), [])
    janitor = optional(list(string), [])
  })
  nullable = false

  validation {
    condition     = length(var.service_accounts.writer) > 0
    error_message = "Without a writer no database can go on here."
  }
}

variable "cluster_id" {
  description = "The ACK cluster of this region, with Outrider installed and an autoscaler."
  type        = string
  nullable    = false
}

variable "node_pool" {
  description = "The nodes that come when databases do; see spot-node-pool."
  type = object({
    name               = optional(string, "databases-recovery")
    vswitch_ids        = list(string)
    instance_types     = list(object({ type = string, price_limit = number }))
    security_group_ids = optional(list(string))
    max_size           = optional(number, 10)
    disk               = optional(object({ category = optional(string, "cloud_essd"), size_gib = optional(number, 120) }), {})
  })
  nullable = false
}

variable "namespaces" {
  description = "The namespaces whose databases go on here, for the output namespaces."
  type        = list(string)
  default     = []
  nullable    = false
}

variable "tags" {
  description = "Tags of the bucket, at most 10."
  type        = map(string)
  default     = {}
  nullable    = false
}
