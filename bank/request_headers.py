"""The headers of every request to an acquirer."""

from typing import Final

from config import VERSION

HEADERS: Final = {
    "User-Agent": f"payment-gateway/{VERSION}",
    "Accept": "application/json",
    "Accept-Encoding": "identity",
}
