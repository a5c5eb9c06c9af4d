variable "cluster_id" {
  description = "The ACK cluster that gets the nodes."
  type        = string
  nullable    = false
}

variable "name" {
  description = "The name of the node pool."
  type        = string
  default     = "databases-spot"
  nullable    = false
}

variable "vswitch_ids" {
  description = "VSwitches for the nodes, in several zones: a zone that runs out of a type need not stop anybody."
  type        = list(string)
  nullable    = false

  validation {
    condition     = length(var.vswitch_ids) > 0
    error_message = "At least one VSwitch."
  }
}

variable "instance_types" {
  description = "Types of instances, and what an hour of each may cost at most, in the currency of the account. Above the limit ECS takes the node away; the price of pay-as-you-go is a sensible limit."
  type = list(object({
    type        = string
    price_limit = number
  }))
  nullable = false

  validation {
    condition     = length(distinct([for t in var.instance_types : t.type])) >= 2 && length(distinct([for t in var.instance_types : t.type])) == length(var.instance_types)
    error_message = "At least two different types: a pool of one type is empty when that type is sold out."
  }

  validation {
    condition     = alltrue([for t in var.instance_types : t.price_limit > 0])
    error_message = "Each limit is more than 0."
  }
}

variable "size" {
  description = "How many nodes, without autoscaling. 0 is a pool that only waits."
  type        = number
  default     = 2
  nullable    = false
}

variable "autoscaling" {
  description = "Between how many nodes the cluster autoscaler chooses, instead of size."
  type        = object({ min = number, max = number })
  default     = null

  validation {
    condition     = var.autoscaling == null ? true : var.autoscaling.min >= 0 && var.autoscaling.max >= var.autoscaling.min && var.autoscaling.max > 0
    error_message = "0 <= min <= max, and max at least 1."
  }
}

variable "compensate_with_on_demand" {
  description = "Whether a pay-as-you-go node is bought when no spot node is to be had."
  type        = bool
  default     = true
  nullable    = false
}

variable "on_demand_base_capacity" {
  description = "How many nodes of the pool are pay-as-you-go in any case. Outrider's webhook prefers nodes that stay."
  type        = number
  default     = 0
  nullable    = false
}

variable "security_group_ids" {
  description = "Security groups; without them those of the cluster."
  type        = list(string)
  default     = null
}

variable "image_type" {
  description = "The operating system of the nodes."
  type        = string
  default     = "ContainerOS"
  nullable    = false
}

variable "disk" {
  description = "The system disk of each node. Its size is for every database on the node, twice where it restores."
  type = object({
    category = optional(string, "cloud_essd")
    size_gib = optional(number, 120)
  })
  default  = {}
  nullable = false
}

variable "labels" {
  description = "Labels of the nodes, for nodeSelector and affinity of the databases."
  type        = map(string)
  default     = { "outrider.dev/pool" = "spot" }
  nullable    = false
}

variable "taints" {
  description = "Taints of the nodes. The pods need matching tolerations: nothing adds them."
  type = list(object({
    key    = string
    value  = optional(string, "true")
    effect = optional(string, "NoSchedule")
  }))
  default  = []
  nullable = false
}
