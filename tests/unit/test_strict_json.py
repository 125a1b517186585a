"""Reading JSON strictly: what is refused and accepted, and that nothing that was read is kept or repeated."""

import json

import jiter
import pytest

from bank import strict_json

CARD_NUMBER = "2222405343248877"


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b" \n", id="only white space"),
        pytest.param(b"\xef\xbb\xbf{}", id="a byte order mark"),
        pytest.param("{}".encode("utf-16"), id="UTF-16"),
        pytest.param(b'"\xff"', id="not UTF-8"),
        pytest.param(b'"\xed\xa0\x80"', id="a surrogate in UTF-8"),
        pytest.param(b'"\\ud800"', id="an unpaired surrogate"),
        pytest.param(b'{"\\udc00x": 1}', id="an unpaired surrogate in a name"),
        pytest.param(b'"\\ude00\\ud83d"', id="a surrogate pair in the wrong order"),
        pytest.param(b'{"a": 1, "a": 2}', id="a repeated name"),
        pytest.param(b'{"x": [{"a": 1, "\\u0061": 1}]}', id="a repeated name, nested and escaped"),
        pytest.param(b"NaN", id="NaN"),
        pytest.param(b'{"a": -Infinity}', id="-Infinity"),
        pytest.param(b"1e999", id="too large for a float"),
        pytest.param(b'{"a": [{"b": -1e400}]}', id="too large for a float, nested"),
        pytest.param(b"1" * 400 + b".0", id="too large for a float without an exponent"),
        pytest.param(b"1" * 5_000, id="an integer of 5,000 digits"),
        pytest.param(b"[" * 100_000, id="100,000 arrays begun"),
        pytest.param(b"[" * 300 + b"]" * 300, id="300 arrays"),
        pytest.param(b'{"a":' * 100_000, id="100,000 objects begun"),
        pytest.param(b"{} {}", id="two documents"),
        pytest.param(b"{}x", id="trailing garbage"),
        pytest.param(b"[1,]", id="a trailing comma"),
        pytest.param(b"{'a': 1}", id="single quotes"),
        pytest.param(b"01", id="a leading zero"),
        pytest.param(b"+1", id="a leading plus"),
        pytest.param(b"1.", id="no digit after the point"),
        pytest.param(b'"\t"', id="a bare control character"),
        pytest.param(b"/* */ {}", id="a comment"),
    ],
)
def test_what_is_not_strict_json_is_refused(document: bytes) -> None:
    """The error says `not strict JSON` and nothing else."""
    with pytest.raises(ValueError, match=r"^not strict JSON$") as caught:
        strict_json.loads(document)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "document",
    [
        b' {"a": [1, -0, 2.5e-3, 1E+2], "b": {"c": null}, "d": true}\r\n\t',
        b"-0.0",
        b"5e-324",
        b"1.7976931348623157e308",
        b"9007199254740993",
        b"-" + b"9" * 4_300,
        b'"\\ud83d\\ude00 \\u0000 \\/ \x7f"',
        '{"é": "日本"}'.encode(),
        b"[" * 200 + b"]" * 200,
    ],
)
def test_strict_json_is_read_as_by_pythons_json(document: bytes) -> None:
    """The values are equal and have the same types."""
    assert repr(strict_json.loads(document)) == repr(json.loads(document))


def test_an_error_does_not_repeat_what_was_read() -> None:
    """The error does not quote a repeated name, which may be a card number, as the parser's own message does."""
    with pytest.raises(ValueError, match=CARD_NUMBER):
        jiter.from_json(f'{{"{CARD_NUMBER}": 1, "{CARD_NUMBER}": 2}}'.encode(), catch_duplicate_keys=True)
    with pytest.raises(ValueError, match=r"^not strict JSON$") as caught:
        strict_json.loads(f'{{"{CARD_NUMBER}": 1, "{CARD_NUMBER}": 2}}'.encode())
    assert caught.value.__context__ is None


def test_nothing_that_was_read_is_kept() -> None:
    """The parser's cache of strings stays empty, so a card number does not outlive its request."""
    jiter.cache_clear()
    strict_json.loads(json.dumps({"card_number": CARD_NUMBER, "cvv": "123"}).encode())
    assert jiter.cache_usage() == 0
