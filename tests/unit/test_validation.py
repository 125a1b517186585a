"""The validator: it reports every error of a request at once, in words that come from the contract."""

import copy
from datetime import date
from typing import Any

import pytest

from handlers import validation
from handlers.body import _parse as parse
from handlers.contract import Contract
from handlers.problems import Code, Problem
from tests.support import valid_payment

TODAY = date(2026, 11, 22)
NOT_STRINGS: tuple[Any, ...] = (None, 4242424242424242, True, [], {}, 4.2)
CONTRACT = Contract((), lambda: TODAY, lambda: False, simulator=True)


def schema(today: date = TODAY) -> dict[str, Any]:
    """Return the schema of a new payment with its references resolved, as Connexion passes it."""
    contract = Contract((), lambda: today, lambda: False, simulator=True)
    schemas = contract.document["components"]["schemas"]
    new_payment = copy.deepcopy(schemas["PaymentRequest"])
    for name, field in new_payment["properties"].items():
        if "$ref" in field:
            new_payment["properties"][name] = schemas[field["$ref"].rpartition("/")[2]]
    return contract.enforced(new_payment)


def problem(sent: Any, today: date = TODAY) -> Problem | None:
    """Return what validating a body raises, None for a valid one."""
    try:
        validation.raise_if(validation.Schema(schema(today)).find_errors(sent), CONTRACT.max_errors)
    except Problem as raised:
        return raised
    return None


def errors(sent: Any, today: date = TODAY) -> dict[str, str]:
    """Return the code of each invalid field of a body."""
    raised = problem(sent, today)
    return {error["field"]: error["code"] for error in raised.errors or []} if raised else {}


def test_a_valid_payment_has_no_errors() -> None:
    """The payment that the other tests change is valid."""
    assert problem(valid_payment()) is None


def test_all_invalid_fields_are_reported_in_the_contracts_order() -> None:
    """One problem lists errors of type, bounds, expiry and enum, a missing field and, last, an unknown one."""
    sent = {
        "surprise": 1,
        "amount": 0,
        "currency": "XXX",
        "expiry_year": 2020,
        "expiry_month": 13,
        "card_number": 4242424242424242,
    }
    raised = problem(sent)
    assert raised is not None
    assert raised.code is Code.VALIDATION_FAILED
    assert raised.errors == [
        {"field": "card_number", "code": "wrong_type", "message": "must be a string of 14 to 19 ASCII digits"},
        {"field": "expiry_month", "code": "out_of_range", "message": "must be an integer from 1 to 12"},
        {"field": "expiry_year", "code": "expired", "message": "together with expiry_month must not be in the past"},
        {"field": "currency", "code": "not_supported", "message": "must be one of GBP, USD, CNY"},
        {"field": "amount", "code": "out_of_range", "message": "must be an integer from 1 to 999999999999"},
        {"field": "cvv", "code": "required", "message": "is required and must be a string of 3 or 4 ASCII digits"},
        {"field": "surprise", "code": "unknown_field", "message": "is not a field of this request"},
    ]
    assert raised.detail == (
        "card_number must be a string of 14 to 19 ASCII digits; expiry_month must be an integer from 1 to 12; "
        "expiry_year together with expiry_month must not be in the past; currency must be one of GBP, USD, CNY; "
        "amount must be an integer from 1 to 999999999999; "
        "cvv is required and must be a string of 3 or 4 ASCII digits; surprise is not a field of this request."
    )


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        *[("card_number", value, "wrong_type") for value in NOT_STRINGS],
        *[("card_number", "4" * length, "wrong_format") for length in (0, 1, 13, 20, 1000)],
        ("card_number", "4242424242424242\n", "wrong_format"),
        ("card_number", "\n4242424242424242", "wrong_format"),
        ("card_number", "4242 4242 4242 4242", "wrong_format"),
        ("card_number", "٤٢٤٢٤٢٤٢٤٢٤٢٤٢٤٢", "wrong_format"),  # Arabic-Indic digits
        ("card_number", "４２４２４２４２４２４２４２４２", "wrong_format"),  # noqa: RUF001  # full-width digits
        *[("expiry_month", value, "wrong_type") for value in ("12", 1.5, 12.0, True, None, [1])],
        *[("expiry_month", value, "out_of_range") for value in (0, 13, -1, 10**400)],
        *[("expiry_year", value, "wrong_type") for value in ("2099", 2099.5, False)],
        *[("expiry_year", value, "expired") for value in (0, 99, 999, 2025, -2099)],
        ("expiry_year", 10000, "out_of_range"),
        *[("currency", value, "not_supported") for value in ("EUR", "gbp", "", "GBP ", "GBP\n")],
        *[("currency", value, "wrong_type") for value in (826, None, ["GBP"])],
        *[("amount", value, "out_of_range") for value in (0, -1, 10**12, 10**4000)],
        *[("amount", value, "wrong_type") for value in ("1050", 10.5, 1050.0, True)],
        *[("cvv", value, "wrong_format") for value in ("", "12", "12345", "12a", "123\n", "١٢٣")],
        ("cvv", 123, "wrong_type"),
    ],
)
def test_an_invalid_field_is_one_error(field: str, value: Any, code: str) -> None:
    """A field has one error, with one code, even if it breaks several rules."""
    assert errors({**valid_payment(), field: value}) == {field: code}


@pytest.mark.parametrize(
    "changes",
    [
        {"card_number": "4" * 14},
        {"card_number": "4" * 19},
        {"expiry_month": 1},
        {"expiry_year": 9999},
        {"amount": 1},
        {"amount": 999_999_999_999},
        {"cvv": "0000"},
    ],
)
def test_the_bounds_themselves_are_valid(changes: dict[str, Any]) -> None:
    """Each limit of a length or a number is inclusive."""
    assert problem(valid_payment(**changes)) is None


@pytest.mark.parametrize("field", list(valid_payment()))
def test_every_field_is_required(field: str) -> None:
    """A missing field is an error of this field."""
    assert errors(valid_payment(**{field: None})) == {field: "required"}


@pytest.mark.parametrize(
    ("today", "month", "year", "valid"),
    [
        (date(2026, 11, 30), 11, 2026, True),
        (date(2026, 12, 1), 11, 2026, False),
        (date(2026, 11, 1), 10, 2026, False),
        (date(2026, 11, 1), 12, 2025, False),
        (date(2026, 11, 1), 1, 2027, True),
        (date(2026, 12, 31), 12, 2026, True),
        (date(2027, 1, 1), 12, 2026, False),
        (date(2027, 1, 1), 1, 2027, True),
        (date(2028, 2, 29), 2, 2028, True),
    ],
)
def test_a_card_is_valid_to_the_end_of_its_month(*, today: date, month: int, year: int, valid: bool) -> None:
    """A card is accepted on the last day of its month, and expired on the next day."""
    expected = {} if valid else {"expiry_year": "expired"}
    assert errors(valid_payment(expiry_month=month, expiry_year=year), today) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"expiry_month": 0}, {"expiry_month": "out_of_range"}),
        ({"expiry_month": "1"}, {"expiry_month": "wrong_type"}),
        ({"expiry_month": None}, {"expiry_month": "required"}),
        ({"expiry_month": 1, "cvv": "x"}, {"expiry_year": "expired", "cvv": "wrong_format"}),
        ({"expiry_month": 13, "expiry_year": 2025}, {"expiry_month": "out_of_range", "expiry_year": "expired"}),
        ({"expiry_month": 1, "expiry_year": "2026"}, {"expiry_year": "wrong_type"}),
        ({"expiry_month": 1, "expiry_year": 2026.5}, {"expiry_year": "wrong_type"}),
        ({"expiry_month": 1, "expiry_year": None}, {"expiry_year": "required"}),
    ],
)
def test_year_and_month_are_compared_only_if_each_is_valid(changes: dict[str, Any], expected: dict[str, str]) -> None:
    """A field with another error has only that error, and the rule about both adds none."""
    assert errors(valid_payment(**{"expiry_year": 2026, **changes})) == expected


def test_a_past_year_is_expired_even_without_a_month() -> None:
    """A missing month is reported together with the expired year."""
    assert errors(valid_payment(expiry_month=None, expiry_year=2020)) == {
        "expiry_month": "required",
        "expiry_year": "expired",
    }


@pytest.mark.parametrize("sent", [None, [], "text", 1, True, [valid_payment()]])
def test_a_body_that_is_not_an_object_is_one_error(sent: Any) -> None:
    """The error names the body, because there are no fields."""
    assert errors(sent) == {"(body)": "wrong_type"}


def test_unknown_field_names_are_repeated_only_if_they_are_plain_words() -> None:
    """Any other name is replaced, because it may hold a card number."""
    sent = valid_payment(card="x", **{"4242424242424242": 1, "card 4242": 2, "": 3, "x" * 41: 4, "cvv\n": 5})
    raised = problem(sent)
    assert raised is not None
    assert errors(sent) == {"card": "unknown_field", "(unnamed)": "unknown_field"}
    assert "4242" not in str(raised.detail)


def test_the_list_of_errors_is_bounded() -> None:
    """The list is as long as the contract allows, and the detail counts the errors that it leaves out."""
    raised = problem(dict.fromkeys((f"field_{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(200)), 1))
    assert raised is not None
    assert raised.errors is not None
    assert len(raised.errors) == CONTRACT.max_errors == 50
    assert str(raised.detail).endswith("; and 156 more.")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        b"[" * 16_000,
        b'{"a":' * 3_000,
        b"1" * 5_000,
        b"NaN",
        b'{"amount": NaN}',
        b'{"amount": Infinity}',
        b'{"amount": -Infinity}',
        b'{"amount": 1e400}',
        b'{"amount": 1, "amount": 2}',
        b'{"x": {"a": 1, "a": 1}}',
        b"{'a': 1}",
        b"{} {}",
        b'{"a": 01}',
        b'{"a": "\t"}',
    ],
)
def test_a_body_that_is_not_strict_json_is_malformed(body: bytes) -> None:
    """No exception in the chain holds the body, as the parser's own would."""
    with pytest.raises(Problem) as caught:
        parse(body)
    assert caught.value.code is Code.MALFORMED_JSON
    assert str(caught.value.__context__) == "not strict JSON"
    assert caught.value.__context__ is not None
    assert caught.value.__context__.__context__ is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"minimum": 5, "maximum": 5}, "must be an integer of 5"),
        ({"minimum": 5}, "must be an integer from 5"),
        ({"maximum": 5}, "must be an integer up to 5"),
        ({}, "must be an integer"),
    ],
)
def test_messages_follow_the_schema(changes: dict[str, int], message: str) -> None:
    """The message states the limits of the schema."""
    loose = {"type": "object", "properties": {"n": {"type": "integer", **changes}}}
    assert validation.Schema(loose).find_errors({"n": "x"}) == [
        {"field": "n", "code": "wrong_type", "message": message}
    ]
