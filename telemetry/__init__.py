"""What operators see of the gateway: logs, metrics, and the request that a log line belongs to."""
