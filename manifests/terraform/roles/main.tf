# Who may do what with an archive: four roles that service accounts of one cluster take on (RRSA), with the rights of
# manifests/ram. Those files are for the bucket "backups" and what is below "prod/"; here both are replaced, and nothing else.
locals {
  ram = "${path.module}/../../ram"

  accounts = { for role, accounts in var.service_accounts : role => accounts if length(accounts) > 0 }

  # The prefix first: a bucket's name may end in "prod".
  policies = {
    for role in keys(local.accounts) : role => replace(
      replace(file("${local.ram}/${role}.json"), "prod/*", "${var.prefix}/*"),
      "acs:oss:*:*:backups", "acs:oss:*:*:${var.bucket}",
    )
  }

  example = jsondecode(file("${local.ram}/trust.json")).Statement[0]
  trust = {
    for role, accounts in local.accounts : role => jsonencode({
      Version = "1"
      Statement = [merge(local.example, {
        Principal = { Federated = [var.rrsa.oidc_provider_arn] }
        Condition = {
          StringEquals = merge(local.example.Condition.StringEquals, {
            "oidc:iss" = [var.rrsa.oidc_issuer_url]
            "oidc:sub" = [for account in accounts : "system:serviceaccount:${replace(account, "/", ":")}"]
          })
        }
      })]
    })
  }
}

resource "alicloud_ram_policy" "archive" {
  for_each = local.accounts

  policy_name     = "${var.name}-${each.key}"
  policy_document = local.policies[each.key]
  description     = "Outrider, ${each.key} of ${var.bucket}/${var.prefix}"
  # A policy keeps five versions; the sixth change would fail without it.
  rotate_strategy = "DeleteOldestNonDefaultVersionWhenLimitExceeded"
}

resource "alicloud_ram_role" "archive" {
  for_each = local.accounts

  role_name                   = "${var.name}-${each.key}"
  assume_role_policy_document = local.trust[each.key]
  description                 = "Outrider, ${each.key} of ${var.bucket}/${var.prefix}"
  max_session_duration        = 3600
}

resource "alicloud_ram_role_policy_attachment" "archive" {
  for_each = local.accounts

  role_name   = alicloud_ram_role.archive[each.key].role_name
  policy_name = alicloud_ram_policy.archive[each.key].policy_name
  policy_type = "Custom"
}

# A key of one's own asks for rights of its own, for whoever reads or writes.
resource "alicloud_ram_policy" "key" {
  count = var.kms_key_id == null ? 0 : 1

  policy_name     = "${var.name}-key"
  description     = "Outrider, the key of ${var.bucket}"
  rotate_strategy = "DeleteOldestNonDefaultVersionWhenLimitExceeded"
  policy_document = jsonencode({
    Version = "1"
    Statement = [{
      Effect   = "Allow"
      Action   = ["kms:GenerateDataKey", "kms:Decrypt"]
      Resource = ["acs:kms:*:*:*/${var.kms_key_id}"]
    }]
  })
}

resource "alicloud_ram_role_policy_attachment" "key" {
  for_each = { for role, accounts in local.accounts : role => accounts if var.kms_key_id != null }

  role_name   = alicloud_ram_role.archive[each.key].role_name
  policy_name = alicloud_ram_policy.key[0].policy_name
  policy_type = "Custom"
}
