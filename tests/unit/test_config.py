"""The settings: their defaults and sources, and one line for each invalid value."""

from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from dotenv import dotenv_values

import config
from config import SETTINGS, Config, ConfigError
from tests.support import ROOT


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Leave a test no setting and no .env but its own."""
    monkeypatch.chdir(tmp_path)
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)


def test_the_defaults_are_the_documented_ones() -> None:
    """When nothing is set, the gateway uses the simulator, memory and loopback."""
    loaded = config.load()
    assert len(loaded.fingerprint_key) == 32
    assert loaded != config.load(), "with memory each start makes a new fingerprint key"
    assert replace(loaded, fingerprint_key=b"") == Config(
        bank_url=None,
        bank_connect_timeout_s=2,
        bank_timeout_s=10,
        bank_retries=2,
        bank_concurrency=128,
        bank_queue=128,
        merchant_share=0.75,
        breaker_failures=10,
        breaker_open_s=5,
        bank_ca_file=None,
        bank_client_cert=None,
        supported_currencies=(),
        store_url="memory:",
        store_durability="full",
        fingerprint_key=b"",
        fingerprint_old_keys=(),
        api_keys={},
        retention_days=None,
        rate_limit=(),
        rate_limit_store="memory:",
        cors_origins=(),
        host="127.0.0.1",
        allowed_hosts=frozenset(),
        trusted_proxies=(),
        max_connections=None,
        max_connections_per_client=256,
        port=8000,
        tls_cert=None,
        tls_key=None,
        allow_plaintext=False,
        workers=1,
        drain_s=0,
        metrics_host="127.0.0.1",
        metrics_port=None,
        log_level="INFO",
        log_format="auto",
    )


def test_env_example_lists_every_setting_with_its_default() -> None:
    """The file is what `python config.py` prints, and has each setting's name and default."""
    assert (ROOT / ".env.example").read_text() == config.env_example()
    assert dotenv_values(ROOT / ".env.example") == {name: setting.default for name, setting in SETTINGS.items()}


def test_the_command_line_overrides_the_environment_and_the_environment_overrides_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A setting has the value of the first source that sets it; the last source is its default."""
    (tmp_path / ".env").write_text("PORT=1\nHOST=192.0.2.1\nBANK_RETRIES=1\n")
    monkeypatch.setenv("PORT", "2")
    monkeypatch.setenv("HOST", "192.0.2.2")
    loaded = config.load({"PORT": "3"})
    assert (loaded.port, loaded.host, loaded.bank_retries, loaded.bank_concurrency) == (3, "192.0.2.2", 1, 128)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("BANK_URLL=http://secret", ".env line 1 sets BANK_URLL: did you mean BANK_URL?"),
        ("\n# BANK\n\nbank_url=http://secret", ".env line 4 sets bank_url: did you mean BANK_URL?"),
        ("PORT=1\nexport STORE_URI='secret'", ".env line 2 sets STORE_URI: did you mean STORE_URL?"),
        ("LLAMAS=secret", ".env line 1 sets LLAMAS, which is not a setting; allowed: see .env.example"),
        ("c2VjcmV0=", ".env line 1 sets something that is not a setting; allowed: see .env.example"),
    ],
)
def test_a_name_in_the_file_that_is_not_a_setting_stops_the_start(tmp_path: Path, text: str, message: str) -> None:
    """The error has the line and the nearest setting, and never a value."""
    (tmp_path / ".env").write_text(text)
    with pytest.raises(ConfigError) as caught:
        config.load()
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "text", ["BANK_URL", "API_KEYS='secret", "secret", "PORT=1 \nFINGERPRINT_KEY = 'a' secret", "=secret"]
)
def test_a_line_of_the_file_that_can_not_be_read_stops_the_start(tmp_path: Path, text: str) -> None:
    """The error has the number of the line and not its text, which may be a secret."""
    (tmp_path / ".env").write_text(text)
    with pytest.raises(ConfigError) as caught:
        config.load()
    line = 1 + text.count("\n")
    assert str(caught.value) == f".env line {line} can't be read; allowed: NAME=VALUE, see .env.example"


def test_all_errors_of_the_file_are_reported_together(tmp_path: Path) -> None:
    """Each wrong line is one line of the error."""
    (tmp_path / ".env").write_text("\ufeffPORT=1\nPROT=2\n\nHOTS=3\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        config.load()
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == [
        ".env line 2 sets PROT",
        ".env line 4 sets HOTS",
    ]


def test_names_in_the_environment_that_begin_like_settings_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with the beginning of a setting is reported with the nearest one; other names are other programs'."""
    for name in ("BANK_URLL", "STORE_ROOM_OF_ANOTHER_PROGRAM", "BANKING", "LOG_LEVEL", "PORTT"):
        monkeypatch.setenv(name, "INFO")
    assert config.misspelled() == [
        "the environment sets BANK_URLL: did you mean BANK_URL?",
        "the environment sets STORE_ROOM_OF_ANOTHER_PROGRAM, which is not a setting; allowed: see .env.example",
    ]


def test_the_simulator_is_the_bank_by_name_or_without_a_bank() -> None:
    """The gateway says that no money moves exactly then."""
    settings = {None: True, "simulator:": True, "https://bank.test": False, "http://simulator:80": False}
    for url, simulates in settings.items():
        assert config.load({"BANK_URL": url} if url else {}).simulates_bank() is simulates


def test_an_empty_value_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that is empty in the environment has its default."""
    for name in SETTINGS:
        monkeypatch.setenv(name, "")
    assert config.load().port == 8000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("BANK_TIMEOUT_S", value) for value in ("0", "-1", "nan", "inf", "ten", "1e9")],
        *[("BANK_CONNECT_TIMEOUT_S", value) for value in ("0", "61")],
        *[("BANK_RETRIES", value) for value in ("-1", "11", "1.5", "²")],
        *[("BANK_CONCURRENCY", value) for value in ("0", "2001")],
        *[
            ("SUPPORTED_CURRENCIES", value)
            for value in ("EURO", "eur", "GBP,", "GBP,GBP", "XXX", "XTS", "XAU", "GBP;USD")
        ],
        *[("FINGERPRINT_KEY", value) for value in ("secret", "0" * 63, "0" * 65, "g" * 64)],
        *[("HOST", value) for value in ("a b", "http://x", "[::1]")],
        *[("PORT", value) for value in ("65536", "-1", "http")],
        *[("WORKERS", value) for value in ("0", "65", "two")],
        *[("LOG_LEVEL", value) for value in ("LOUD", "5")],
        *[("FINGERPRINT_OLD_KEYS", value) for value in ("secret", f"{'0f' * 32},{'0' * 64}", "0f" * 31)],
        *[("LOG_FORMAT", value) for value in ("xml", "JSON lines")],
        *[("BANK_QUEUE", value) for value in ("-1", "many", "10001")],
        *[("BREAKER_FAILURES", value) for value in ("0", "-1", "x")],
        *[("BREAKER_OPEN_S", value) for value in ("0", "3601", "nan")],
        *[("BANK_CA_FILE", value) for value in ("/no/such/secret", __file__)],
        *[("BANK_CLIENT_CERT", value) for value in ("/no/such/secret", __file__)],
        *[
            ("API_KEYS", value)
            for value in ("secret", "acme:secret", f"acme:{'0' * 63}", "0" * 64, f"4a:{'0' * 64}", f"a b:{'0' * 64}")
        ],
        *[
            ("RATE_LIMIT", value)
            for value in ("100", "0/second", "100/fortnight", "-1/second", "1/second;x", "1/second;2/second")
        ],
        *[("CORS_ORIGINS", value) for value in ("shop.example.com", "https://shop/", "https://a https://b", "null")],
        *[("DRAIN_S", value) for value in ("-1", "301", "x")],
        *[(name, "0") for name in ("MAX_CONNECTIONS", "MAX_CONNECTIONS_PER_CLIENT")],
        *[("ALLOWED_HOSTS", value) for value in ("a:1", "http://a", "a b", "*", "a,,b")],
        *[("TRUSTED_PROXIES", value) for value in ("a", "10.0.0.1/8", "*", "10.0.0.0/33")],
        *[("ALLOW_PLAINTEXT", value) for value in ("2", "true", "-1", "01")],
        *[("METRICS_PORT", value) for value in ("-1", "65536", "x")],
    ],
)
def test_an_invalid_value_is_one_line_that_says_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """The line names the setting, the problem and what is allowed, and never holds a password."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        config.load()
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{name} ")
    assert f"allowed: {SETTINGS[name].allowed}" in message
    assert "secret" not in message


def test_all_invalid_values_are_reported_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has one line for each invalid setting."""
    monkeypatch.setenv("PORT", "x")
    monkeypatch.setenv("LOG_LEVEL", "x")
    with pytest.raises(ConfigError) as caught:
        config.load()
    assert [line.split()[0] for line in str(caught.value).splitlines()] == ["PORT", "LOG_LEVEL"]


def test_several_workers_cannot_share_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """WORKERS above 1 is refused with STORE_URL=memory:, because each process would have its own payments."""
    monkeypatch.setenv("WORKERS", "2")
    with pytest.raises(ConfigError, match=r"^WORKERS .*STORE_URL=memory:.*allowed: 1"):
        config.load()


def test_several_workers_cannot_share_a_rate_limit_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """WORKERS above 1 need a Redis for RATE_LIMIT, because each process would allow the whole rate."""
    for name, value in (("WORKERS", "2"), ("RATE_LIMIT", "5/second"), ("STORE_URL", "sqlite:///p.db")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FINGERPRINT_KEY", "0f" * 32)
    with pytest.raises(ConfigError, match=r"^RATE_LIMIT_STORE .*allowed: .*redis://"):
        config.load()
    monkeypatch.setenv("RATE_LIMIT_STORE", "redis://127.0.0.1/0")
    assert [item.amount for item in config.load().rate_limit] == [5]


def test_a_certificate_for_the_bank_requires_an_https_bank(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, authority: trustme.CA
) -> None:
    """BANK_CLIENT_CERT is refused without an https BANK_URL, because it would never be presented."""
    certificate = tmp_path / "client.pem"
    authority.issue_cert("gateway.test").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    monkeypatch.setenv("BANK_CLIENT_CERT", str(certificate))
    with pytest.raises(ConfigError, match=r"^BANK_CLIENT_CERT .*https"):
        config.load()
    monkeypatch.setenv("BANK_URL", "https://bank.test")
    assert config.load().bank_client_cert == str(certificate)


def test_a_certificate_requires_its_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, authority: trustme.CA) -> None:
    """TLS_CERT is refused without TLS_KEY, with a missing file, and with the key of another certificate."""
    issued, other = authority.issue_cert("gateway.test"), authority.issue_cert("gateway.test")
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    other.private_key_pem.write_to_path(str(tmp_path / "other.pem"))
    monkeypatch.setenv("TLS_CERT", str(tmp_path / "cert.pem"))
    for key in ("", str(tmp_path / "other.pem"), str(tmp_path / "missing.pem")):
        monkeypatch.setenv("TLS_KEY", key)
        with pytest.raises(ConfigError, match=r"^TLS_CERT .*allowed: "):
            config.load()
    monkeypatch.setenv("TLS_KEY", str(tmp_path / "key.pem"))
    assert config.load().tls_cert == str(tmp_path / "cert.pem")


def test_api_keys_map_digests_to_merchants(monkeypatch: pytest.MonkeyPatch) -> None:
    """A merchant may have several keys, and repr() shows none of the digests."""
    monkeypatch.setenv("API_KEYS", f"acme:{'a' * 64}, acme:{'b' * 64},other.shop:{'c' * 64}")
    loaded = config.load()
    assert loaded.api_keys == {"a" * 64: "acme", "b" * 64: "acme", "c" * 64: "other.shop"}
    assert "aaaa" not in repr(loaded)


def test_supported_currencies_are_read_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The codes keep the order of the setting, and spaces after commas are ignored."""
    monkeypatch.setenv("SUPPORTED_CURRENCIES", "JPY, XAF,EUR")
    assert config.load().supported_currencies == ("JPY", "XAF", "EUR")


def test_a_fingerprint_key_of_zeros_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody can guess it."""
    monkeypatch.setenv("FINGERPRINT_KEY", "0" * 64)
    with pytest.raises(ConfigError, match=r"^FINGERPRINT_KEY is all zeros, which anybody can guess; allowed: 64 hex"):
        config.load()


@pytest.mark.parametrize("url", ["sqlite:///payments.db", "postgresql+psycopg://u:secret@h/d"])
def test_a_database_requires_a_fingerprint_key(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """The error says how to make a key, and repr() shows neither the key nor the database's password."""
    monkeypatch.setenv("STORE_URL", url)
    with pytest.raises(ConfigError, match=r"^FINGERPRINT_KEY is not set.*openssl rand -hex 32`$"):
        config.load()
    monkeypatch.setenv("FINGERPRINT_KEY", "0f" * 32)
    loaded = config.load()
    assert loaded.fingerprint_key == b"\x0f" * 32
    monkeypatch.setenv("FINGERPRINT_OLD_KEYS", f"{'0e' * 32}, {'0D' * 32}")
    loaded = config.load()
    assert loaded.fingerprint_old_keys == (b"\x0e" * 32, b"\x0d" * 32)
    assert "secret" not in repr(loaded)
    for shown in ("x0f", "x0e", "x0d"):
        assert shown not in repr(loaded)
