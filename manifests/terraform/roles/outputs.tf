output "names" {
  description = "The roles that were made, by what they are for: credentials: rrsa:NAME in the webhook's configuration."
  value       = { for role, r in alicloud_ram_role.archive : role => r.role_name }
}
