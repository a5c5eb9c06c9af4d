output "bucket" {
  description = "The name of the bucket, once it is there."
  value       = alicloud_oss_bucket.archive.bucket
}

output "location" {
  description = "The region of the bucket as OSS names it, such as oss-cn-hangzhou."
  value       = alicloud_oss_bucket.archive.location
}

output "archive" {
  description = "For the webhook's configuration, or the namespaces: outrider.dev/archive."
  value       = "oss://${alicloud_oss_bucket.archive.bucket}/${var.prefix}"
}

output "endpoint" {
  description = "For outrider.dev/oss-endpoint: inside the VPC, where traffic costs nothing."
  value       = alicloud_oss_bucket.archive.intranet_endpoint
}

output "roles" {
  description = "The roles by what they are for: credentials: rrsa:ROLE in the webhook's configuration."
  value       = var.rrsa == null ? {} : module.roles[0].names
}
