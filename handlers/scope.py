"""What the gateway adds to a request's ASGI scope: the keys, and which value each has."""

from typing import Final

# The `Operation` of the contract that is called (operations.py).
OPERATION: Final = "gateway.operation"

# What is called beside the contract, health or the contract itself: a function that returns a response.
ENDPOINT: Final = "gateway.endpoint"

# The name of the merchant that calls; set before an operation is called.
MERCHANT: Final = "gateway.merchant"

# The response that an operation made. It is the answer whatever fails while it is sent.
RESPONSE: Final = "gateway.response"
