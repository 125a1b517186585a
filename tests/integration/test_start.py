"""What a gateway does at its start."""

from pathlib import Path

from tests.support import Gateway


def test_starting_opens_the_store_once(tmp_path: Path) -> None:
    """Keys are read, migrations run and payments are served through the same connection pool."""
    settings = {"STORE_URL": f"sqlite:///{tmp_path / 'payments.db'}", "FINGERPRINT_KEY": "0f" * 32}
    with Gateway(script=Path(__file__).with_name("opening.py"), settings=settings) as gateway:
        assert gateway.pay().status_code == 201
    assert gateway.log.count("OPENED") == 1
