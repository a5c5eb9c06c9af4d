mock_provider "alicloud" {}

variables {
  name   = "outrider"
  bucket = "acme-prod"
  prefix = "eu/prod2"
  rrsa = {
    oidc_provider_arn = "acs:ram::42:oidc-provider/ack-rrsa-c1"
    oidc_issuer_url   = "https://oidc-ack-cn-hangzhou.example/c1"
  }
  service_accounts = {
    writer  = ["shop/default"]
    reader  = ["clones/default"]
    drill   = ["shop/drill"]
    janitor = ["jobs/expire"]
  }
}

run "rights_are_those_of_manifests_ram" {
  assert {
    condition     = length(alicloud_ram_role.archive) == 4 && length(alicloud_ram_policy.archive) == 4 && length(alicloud_ram_role_policy_attachment.archive) == 4
    error_message = "a role, a policy and an attachment for each"
  }
  # A statement for each statement, with the same effect and the same actions.
  assert {
    condition = alltrue([for role, p in alicloud_ram_policy.archive :
      [for s in jsondecode(p.policy_document).Statement : [s.Effect, s.Action]] ==
      [for s in jsondecode(file("../../ram/${role}.json")).Statement : [s.Effect, s.Action]]
    ])
    error_message = "the rights differ from manifests/ram"
  }
  assert {
    condition = alltrue(flatten([for p in alicloud_ram_policy.archive : [for s in jsondecode(p.policy_document).Statement : [for r in s.Resource :
      r == "acs:oss:*:*:acme-prod" || startswith(r, s.Effect == "Deny" ? "acs:oss:*:*:acme-prod/" : "acs:oss:*:*:acme-prod/eu/prod2/")
    ]]]))
    error_message = "a right on something else than the bucket and what is below the prefix"
  }
  assert {
    condition = alltrue(flatten([for p in alicloud_ram_policy.archive : [for s in jsondecode(p.policy_document).Statement :
      contains(s.Action, "oss:ListObjects") ? s.Condition.StringLike["oss:Prefix"] == ["eu/prod2/*"] : true
    ]]))
    error_message = "listing is allowed for something else than the prefix"
  }
}

run "a_writer_deletes_only_the_tail" {
  assert {
    condition = tolist(flatten([for s in jsondecode(alicloud_ram_policy.archive["writer"].policy_document).Statement :
      s.Effect == "Allow" && contains(s.Action, "oss:DeleteObject") ? s.Resource : []
    ])) == tolist(["acs:oss:*:*:acme-prod/eu/prod2/*/outrider/tail/*"])
    error_message = "a writer may delete something else than chunks"
  }
  assert {
    condition = alltrue([for s in jsondecode(alicloud_ram_policy.archive["reader"].policy_document).Statement :
      s.Effect == "Deny" || length(setsubtract(s.Action, ["oss:GetObject", "oss:ListObjects"])) == 0
    ])
    error_message = "a reader may do more than read"
  }
}

run "a_drill_writes_only_verdicts" {
  assert {
    condition = tolist(flatten([for s in jsondecode(alicloud_ram_policy.archive["drill"].policy_document).Statement :
      s.Effect == "Allow" && length(setsubtract(s.Action, ["oss:GetObject", "oss:ListObjects"])) > 0 ? concat(s.Action, s.Resource) : []
    ])) == tolist(["oss:PutObject", "acs:oss:*:*:acme-prod/eu/prod2/*/outrider/drills/*"])
    error_message = "a drill may do more than read and record its verdict"
  }
}

run "only_the_named_accounts_get_in" {
  assert {
    condition = alltrue([for role, r in alicloud_ram_role.archive : jsondecode(r.assume_role_policy_document).Statement == [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Federated = ["acs:ram::42:oidc-provider/ack-rrsa-c1"] }
      Condition = { StringEquals = {
        "oidc:iss" = ["https://oidc-ack-cn-hangzhou.example/c1"]
        "oidc:aud" = ["sts.aliyuncs.com"]
        "oidc:sub" = [{ writer = "system:serviceaccount:shop:default", reader = "system:serviceaccount:clones:default", drill = "system:serviceaccount:shop:drill", janitor = "system:serviceaccount:jobs:expire" }[role]]
      } }
    }]])
    error_message = "the trust differs"
  }
}

run "no_role_that_nobody_takes_on" {
  variables {
    service_accounts = { writer = ["shop/default"] }
  }
  assert {
    condition     = keys(alicloud_ram_role.archive) == ["writer"]
    error_message = "roles for nobody: ${join(", ", keys(alicloud_ram_role.archive))}"
  }
}

run "a_key_of_ones_own" {
  variables {
    kms_key_id = "k-1"
  }
  assert {
    condition     = length(alicloud_ram_role_policy_attachment.key) == 4 && jsondecode(alicloud_ram_policy.key[0].policy_document).Statement[0].Resource == ["acs:kms:*:*:*/k-1"]
    error_message = "who reads or writes may not use the key"
  }
}

run "patterns_are_refused" {
  command = plan
  variables {
    service_accounts = { writer = ["shop/*"] }
  }
  expect_failures = [var.service_accounts]
}

run "nobody_writes_and_deletes" {
  command = plan
  variables {
    service_accounts = { writer = ["shop/default"], janitor = ["shop/default"] }
  }
  expect_failures = [var.service_accounts]
}

run "a_drill_has_an_account_of_its_own" {
  command = plan
  variables {
    service_accounts = { writer = ["shop/default"], drill = ["shop/default"] }
  }
  expect_failures = [var.service_accounts]
}

run "a_prefix_that_widens_is_refused" {
  command = plan
  variables {
    prefix = "*"
  }
  expect_failures = [var.prefix]
}
