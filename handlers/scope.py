"""The keys that the gateway adds to a request's ASGI scope, and their values."""

from typing import Final

# The `Operation` of the contract that is called (operations.py).
OPERATION: Final = "gateway.operation"

# The endpoint outside the contract that is called (contract.py).
ENDPOINT: Final = "gateway.endpoint"

# The name of the merchant that calls; set before an operation is called.
MERCHANT: Final = "gateway.merchant"

# The id of the API key with which it calls, for the log; missing where no key is required.
KEY: Final = "gateway.key"

# The response that an operation made. It is the answer whatever fails while it is sent.
RESPONSE: Final = "gateway.response"

# Headers that the answer gets, whether an operation made it or it is an error: pairs of a name and a value, as bytes.
ADDED_HEADERS: Final = "gateway.headers"
