"""What operators see of the gateway: logs, metrics, and the context that links a log line to its request."""
