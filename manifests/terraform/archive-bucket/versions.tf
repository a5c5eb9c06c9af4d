terraform {
  required_version = ">= 1.8"

  required_providers {
    alicloud = {
      source  = "aliyun/alicloud"
      version = "~> 1.285"
    }
  }
}
