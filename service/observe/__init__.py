"""What operators see: metrics, resources, logs."""
