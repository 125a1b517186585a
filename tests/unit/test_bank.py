"""The bank package: which URLs it accepts."""

from typing import Any

import pytest

import bank
from config import ConfigError
from settings import SETTINGS

OPTIONS: dict[str, Any] = {
    "connect_timeout_s": 0.3,
    "timeout_s": 1,
    "retries": 0,
    "concurrency": 1,
    "queue": 1,
    "breaker_failures": 3,
    "breaker_open_s": 1,
}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "bank",
        "//bank",
        "ftp://bank",
        "http://",
        "http://bank:x",
        "http://bank:0",
        "http://bank:65536",
        "http://[::1",
        "http://u:secret@bank",
        "http://@bank",
        "http://bank?a=secret",
        "http://bank/?",
        "http://bank/#x",
        " http://bank",
        "http://ba nk",
        "http://bank/\n",
    ],
)
def test_a_wrong_url_is_one_line_that_says_what_is_allowed(url: str) -> None:
    """The message names the setting and the allowed forms, and does not repeat the URL."""
    with pytest.raises(ConfigError) as caught:
        bank.configure(url, **OPTIONS)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("BANK_URL ")
    assert message.endswith(f"; allowed: {SETTINGS['BANK_URL'].allowed}")
    assert "secret" not in message
    assert caught.value.__context__ is None


@pytest.mark.parametrize("url", ["http://bank", "HTTPS://bank:8443/api/v2", "http://[::1]:8080/"])
def test_a_url_of_a_bank_is_accepted(url: str) -> None:
    """The scheme in either case, with or without port and path."""
    bank.configure(url, **OPTIONS)
    assert not bank.circuit_open()
