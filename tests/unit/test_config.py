"""The settings: defaults, where they come from, and that a wrong one is told in one line."""

from dataclasses import replace
from pathlib import Path

import pytest
from dotenv import dotenv_values

import config
from config import SETTINGS, Config, ConfigError
from tests.support import ROOT


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting and no .env but the test's own."""
    monkeypatch.chdir(tmp_path)
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)


def test_the_defaults_are_the_documented_ones() -> None:
    """Nothing set: the simulator, memory, loopback."""
    loaded = config.load()
    assert len(loaded.fingerprint_key) == 32
    assert loaded != config.load(), "memory makes a fingerprint key of its own each time"
    assert replace(loaded, fingerprint_key=b"") == Config(
        bank_url=None,
        bank_connect_timeout_s=2,
        bank_timeout_s=10,
        bank_retries=2,
        bank_concurrency=128,
        supported_currencies=(),
        store_url="memory:",
        fingerprint_key=b"",
        host="127.0.0.1",
        port=8000,
        workers=1,
        log_level="INFO",
    )


def test_env_example_lists_every_setting_with_its_default() -> None:
    """The file and the table say the same."""
    assert dotenv_values(ROOT / ".env.example") == {name: setting.default for name, setting in SETTINGS.items()}


def test_the_command_line_goes_over_the_environment_over_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Four sources, the nearest wins."""
    (tmp_path / ".env").write_text("PORT=1\nHOST=192.0.2.1\nBANK_RETRIES=1\n")
    monkeypatch.setenv("PORT", "2")
    monkeypatch.setenv("HOST", "192.0.2.2")
    loaded = config.load({"PORT": "3"})
    assert (loaded.port, loaded.host, loaded.bank_retries, loaded.bank_concurrency) == (3, "192.0.2.2", 1, 128)


def test_an_empty_value_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """`BANK_URL=` in a file or a shell does not mean an empty URL."""
    for name in SETTINGS:
        monkeypatch.setenv(name, "")
    assert config.load().port == 8000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("BANK_URL", value) for value in ("bank", "ftp://bank", "http://", "http://bank:x", "http://bank:0")],
        *[
            ("BANK_URL", value)
            for value in ("http://u:secret@bank", "http://bank?a=b", "http://bank/#x", "http://bank/?", " http://b")
        ],
        *[("BANK_TIMEOUT_S", value) for value in ("0", "-1", "nan", "inf", "ten", "1e9")],
        *[("BANK_CONNECT_TIMEOUT_S", value) for value in ("0", "61")],
        *[("BANK_RETRIES", value) for value in ("-1", "11", "1.5", "²")],
        *[("BANK_CONCURRENCY", value) for value in ("0", "2001")],
        *[
            ("SUPPORTED_CURRENCIES", value)
            for value in ("EURO", "eur", "GBP,", "GBP,GBP", "XXX", "XTS", "XAU", "GBP;USD")
        ],
        *[
            ("STORE_URL", value)
            for value in ("redis://", "memory", "sqlite://", "postgresql://u:secret@h/d", "sqlite:///")
        ],
        *[("FINGERPRINT_KEY", value) for value in ("secret", "0" * 63, "0" * 65, "g" * 64)],
        *[("HOST", value) for value in ("a b", "http://x", "[::1]")],
        *[("PORT", value) for value in ("65536", "-1", "http")],
        *[("WORKERS", value) for value in ("0", "65", "two")],
        *[("LOG_LEVEL", value) for value in ("LOUD", "5")],
    ],
)
def test_a_wrong_value_is_one_line_that_says_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """The variable, the problem, what is allowed, and never a password."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        config.load()
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{name} ")
    assert f"allowed: {SETTINGS[name].allowed}" in message
    assert "secret" not in message


def test_every_wrong_value_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line each."""
    monkeypatch.setenv("PORT", "x")
    monkeypatch.setenv("LOG_LEVEL", "x")
    with pytest.raises(ConfigError) as caught:
        config.load()
    assert [line.split()[0] for line in str(caught.value).splitlines()] == ["PORT", "LOG_LEVEL"]


def test_several_workers_cannot_share_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process would know only its own payments."""
    monkeypatch.setenv("WORKERS", "2")
    with pytest.raises(ConfigError, match=r"^WORKERS .*STORE_URL=memory:.*allowed: 1"):
        config.load()


def test_currencies_replace_the_contracts(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order given; spaces around commas do no harm."""
    monkeypatch.setenv("SUPPORTED_CURRENCIES", "JPY, XAF,EUR")
    assert config.load().supported_currencies == ("JPY", "XAF", "EUR")


@pytest.mark.parametrize("url", ["sqlite:///payments.db", "postgresql+psycopg://u:secret@h/d"])
def test_a_database_needs_a_fingerprint_key(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """One line that says how to make one."""
    monkeypatch.setenv("STORE_URL", url)
    with pytest.raises(ConfigError, match=r"^FINGERPRINT_KEY is not set.*openssl rand -hex 32`$"):
        config.load()
    monkeypatch.setenv("FINGERPRINT_KEY", "0f" * 32)
    loaded = config.load()
    assert loaded.fingerprint_key == b"\x0f" * 32
    assert "secret" not in repr(loaded)
    assert "x0f" not in repr(loaded)
