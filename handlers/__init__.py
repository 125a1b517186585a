"""The HTTP API: the contract, the validation of requests, the operations and the errors."""
