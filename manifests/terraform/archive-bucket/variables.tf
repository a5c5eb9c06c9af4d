variable "bucket" {
  description = "The name of the bucket, one in the whole of OSS."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.bucket))
    error_message = "3 to 63 lower-case letters, digits and hyphens, none at the ends."
  }
}

variable "prefix" {
  description = "What is in front of the archives, without slashes at its ends; each database has NAMESPACE/CLUSTER below it."
  type        = string
  default     = "prod"
  nullable    = false

  validation {
    condition     = can(regex("^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$", var.prefix))
    error_message = "Letters, digits, dots, underscores and hyphens, with single slashes between, none at the ends."
  }
}

variable "name" {
  description = "What the names of roles and policies begin with. RAM knows no regions: another bucket needs another name."
  type        = string
  default     = "outrider"
  nullable    = false
}

variable "redundancy_type" {
  description = "ZRS keeps everything in three zones of the region, LRS in one, for less."
  type        = string
  default     = "ZRS"
  nullable    = false

  validation {
    condition     = contains(["ZRS", "LRS"], var.redundancy_type)
    error_message = "ZRS or LRS."
  }
}

variable "kms_key_id" {
  description = "A key of your own to encrypt with. Without one OSS encrypts with its own keys (AES256)."
  type        = string
  default     = null
}

variable "abort_uploads_after_days" {
  description = "After how many days parts of an upload that nobody completed are removed. A snapshot must be done by then."
  type        = number
  default     = 7
  nullable    = false

  validation {
    condition     = var.abort_uploads_after_days >= 2
    error_message = "At least 2: a large snapshot may take longer than a day, and OSS counts in whole days."
  }
}

variable "forbid_overwrite" {
  description = "Whether OSS refuses to overwrite what belongs to a snapshot, whoever asks. Not for a bucket that receives a replica."
  type        = bool
  default     = true
  nullable    = false
}

variable "replica" {
  description = "Where everything is copied to: a bucket in another region and its location (oss-cn-shanghai), which recovery-region makes."
  type = object({
    bucket       = string
    location     = string
    sync_role    = optional(string)
    kms_key_id   = optional(string)
    time_control = optional(bool, false)
  })
  default = null
}

variable "rrsa" {
  description = "Where the tokens of the cluster's service accounts come from. Without it no roles are made."
  type = object({
    oidc_provider_arn = string
    oidc_issuer_url   = string
  })
  default = null
}

variable "service_accounts" {
  description = "Who takes on which role, as NAMESPACE/NAME: databases write; clones and people read; restore drills read and record verdicts; a job that expires deletes."
  type = object({
    writer  = list(string)
    reader  = optional(list(string), [])
    drill   = optional(list(string), [])
    janitor = optional(list(string), [])
  })
  default  = { writer = [] }
  nullable = false
}

variable "tags" {
  description = "Tags of the bucket, at most 10."
  type        = map(string)
  default     = {}
  nullable    = false
}
