"""One script a figure or table; each reads ``outputs/`` and neither trains nor evaluates."""
