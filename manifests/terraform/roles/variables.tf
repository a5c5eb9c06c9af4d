variable "name" {
  description = "What the names of roles and policies begin with: NAME-writer, NAME-reader, NAME-drill, NAME-janitor. They are one per account, not per region."
  type        = string
  nullable    = false
}

variable "bucket" {
  description = "The bucket of the archives."
  type        = string
  nullable    = false
}

variable "prefix" {
  description = "What is in front of the archives in the bucket, without slashes at its ends: prod in oss://BUCKET/prod."
  type        = string
  nullable    = false

  # A star or a question mark would widen the rights to what matches.
  validation {
    condition     = can(regex("^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$", var.prefix))
    error_message = "Letters, digits, dots, underscores and hyphens, with single slashes between, none at the ends."
  }
}

variable "rrsa" {
  description = "Where the tokens of the cluster's service accounts come from: rrsa_metadata of alicloud_cs_managed_kubernetes."
  type = object({
    oidc_provider_arn = string
    oidc_issuer_url   = string
  })
  nullable = false

  validation {
    condition     = startswith(var.rrsa.oidc_provider_arn, "acs:ram::") && startswith(var.rrsa.oidc_issuer_url, "https://")
    error_message = "Expected acs:ram::ACCOUNT:oidc-provider/NAME and https://ISSUER."
  }
}

variable "service_accounts" {
  description = "Who takes on which role, as NAMESPACE/NAME. A role that nobody takes on is not made."
  type = object({
    writer  = list(string)
    reader  = optional(list(string), [])
    drill   = optional(list(string), [])
    janitor = optional(list(string), [])
  })
  nullable = false

  # RAM takes the names literally; with a star nobody would get in, and somebody would widen the trust to help it.
  validation {
    condition = alltrue([
      for account in flatten(values(var.service_accounts)) : can(regex("^[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", account))
    ])
    error_message = "Expected NAMESPACE/NAME, such as shop/default, without patterns."
  }

  validation {
    condition = alltrue([
      for account in var.service_accounts.writer : !contains(var.service_accounts.janitor, account)
    ])
    error_message = "A writer that is janitor too can delete its own backups, and so can who takes it over."
  }

  # What is in the database runs beside the token of a drill, which opens all roles of its service account.
  validation {
    condition = alltrue([
      for account in var.service_accounts.drill : !contains(concat(var.service_accounts.writer, var.service_accounts.janitor), account)
    ])
    error_message = "A drill needs a service account of its own: with a writer's or a janitor's, what it restores could write or delete."
  }
}

variable "kms_key_id" {
  description = "The key with which the bucket encrypts, if it is one of your own."
  type        = string
  default     = null
}
