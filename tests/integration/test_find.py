"""Payments are found by the merchant's own reference, through running gateways: all of them, and nobody else's."""

import base64
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import sqlalchemy as sa

from tests import support
from tests.support import Gateway, valid_payment

KEYS = {name: f"pgw_test_{name.encode().hex().ljust(40, '0')}" for name in ("acme", "other")}
API_KEYS = ",".join(f"{name}:{hashlib.sha256(key.encode()).hexdigest()}" for name, key in KEYS.items())
LATER, EARLIER = "2999-01-01T00:00:00Z", "1999-01-01T00:00:00Z"
CARD = "4000056655665556"
# Of `valid_payment()` under the FINGERPRINT_KEY of the test, as version 0.9.0 recorded it.
FINGERPRINT_OF_0_9_0 = "9dcbf27735c8cc612e41f959a0a19cdecdf21111d9d01ae4e0a488df45aa50aa"
SPELLINGS = (CARD, "4000 0566 5566 5556", "4000-0566-5566-5556", "4 - 0000566556655 -- 56", f"paid with {CARD}, thanks")


@pytest.fixture(params=["memory", "sqlite", "postgresql"], scope="module")
def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgresql: Any
) -> Iterator[Gateway]:
    """Payments of two merchants; acme's begin with the state that earlier tests left, so tests use own references."""
    del postgresql  # started before, once
    url = support.store_url(request.param, tmp_path_factory.mktemp("store"), request)
    settings = {"STORE_URL": url, "FINGERPRINT_KEY": "0f" * 32, "API_KEYS": API_KEYS, "LOG_LEVEL": "DEBUG"}
    with Gateway(settings=settings, key=KEYS["acme"]) as running:
        yield running


def find(gateway: Gateway, merchant: str = "acme", **query: Any) -> requests.Response:
    headers = {"Authorization": f"Bearer {KEYS[merchant]}"}
    return gateway.session.get(f"{gateway.api}/payments", params=query, headers=headers, timeout=60)


def ids(answer: requests.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [payment["id"] for payment in answer.json()["data"]]


def pages(gateway: Gateway, **query: Any) -> list[str]:
    """Return the ids on all pages, in their order."""
    found: list[str] = []
    while True:
        answer = find(gateway, **query)
        found += ids(answer)
        if answer.json()["next_cursor"] is None:
            return found
        query["cursor"] = answer.json()["next_cursor"]


def errors(answer: requests.Response) -> list[tuple[str, str]]:
    assert answer.status_code == 400, answer.text
    return sorted((error["field"], error["code"]) for error in answer.json()["errors"])


def test_a_payment_is_found_by_its_reference_as_it_was_answered(gateway: Gateway) -> None:
    """The list, the payment and the answer to its request are the same; metadata keeps every character."""
    metadata = {"": "", "order": "7", "text": '\0 \u20ac \U0001f600 "quoted" \\'}
    made = gateway.pay(reference="as answered", metadata=metadata).json()
    assert (made["reference"], made["metadata"]) == ("as answered", metadata)
    assert (made["card_scheme"], made["response_code"], made["response_summary"]) == ("mastercard", "10000", "Approved")
    assert made["authorization_code"]
    assert made["created_at"] <= made["updated_at"]
    assert find(gateway, reference="as answered").json() == {"data": [made], "next_cursor": None}
    assert gateway.find(made["id"]).json() == made
    declined = gateway.pay(card_number=support.DECLINED_CARD).json()
    assert (declined["reference"], declined["metadata"], declined["authorization_code"]) == (None, {}, None)
    assert (declined["response_code"], declined["response_summary"]) == ("20005", "Declined - do not honour")


def test_filters_and_pages(gateway: Gateway) -> None:
    """Newest first, each payment once, from any cursor that a page gave."""
    made = [gateway.pay(reference="pages", card_number=support.DECLINED_CARD).json()["id"] for _ in range(3)]
    made += [gateway.pay(reference="pages").json()["id"] for _ in range(2)]
    newest_first = made[::-1]
    for limit in (1, 2, 4, 5, 100):
        assert pages(gateway, reference="pages", limit=limit) == newest_first
    assert pages(gateway, reference="pages", status="DECLINED") == newest_first[2:]
    third = gateway.find(made[2]).json()["created_at"]
    assert pages(gateway, reference="pages", created_from=third) == newest_first[:3]
    assert pages(gateway, reference="pages", created_to=third) == newest_first[3:]
    assert pages(gateway, reference="pages", created_from=third, created_to=third) == []
    assert ids(find(gateway, limit=5)) == newest_first


def test_another_merchant_finds_nothing(gateway: Gateway) -> None:
    """Neither by reference nor by a cursor of the payment's merchant."""
    for _ in range(2):
        gateway.pay(reference="mine")
    cursor = find(gateway, reference="mine", limit=1).json()["next_cursor"]
    for query in ({"reference": "mine"}, {"cursor": cursor}, {}):
        assert find(gateway, "other", **query).json() == {"data": [], "next_cursor": None}


def test_any_cursor_and_any_time_is_a_place(gateway: Gateway) -> None:
    """What Python or the database can't hold is no error: it is before or after all payments."""
    made = gateway.pay(reference="places").json()["id"]
    for cursor, expected in {"_" * 32: [], "f" + "_" * 31: [made], "g" + "A" * 31: [], "A" * 32: []}.items():
        assert ids(find(gateway, reference="places", cursor=cursor)) == expected, cursor
    for _ in range(50):
        ids(find(gateway, reference="places", cursor=base64.urlsafe_b64encode(os.urandom(24)).decode()))
    early = (
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "1990-12-31T23:59:60Z",
        "2001-01-01t00:00:00.1234567z",
    )
    late = ("9999-12-31T23:59:59.9999999999-23:59", "2998-06-30T12:00:00+00:00")
    for times, expected in ((early, [made]), (late, [])):
        for time in times:
            assert ids(find(gateway, reference="places", created_from=time)) == expected, time
            assert ids(find(gateway, reference="places", created_to=time)) == [made][len(expected) :], time


def test_every_wrong_parameter_is_in_the_one_400(gateway: Gateway) -> None:
    """What was sent is in no message."""
    query = {
        "reference": "\u20ac",
        "status": "GONE",
        "created_from": "2026-02-30T00:00:00Z",
        "created_to": "yesterday",
        "limit": "101",
        "cursor": "=" * 32,
    }
    answer = find(gateway, **query)
    assert [field for field, _ in errors(answer)] == sorted(query)
    assert not [value for value in query.values() if value in answer.text and value != "101"]
    for limit in ("0", "-1", "1.5", "", "ten"):
        assert [field for field, _ in errors(find(gateway, limit=limit))] == ["limit"], limit


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_card_number_is_refused_wherever_a_merchant_may_write(gateway: Gateway, spelling: str) -> None:
    """In the reference, and in names and texts of the metadata; nothing is charged, and no answer or log has it."""
    before = ids(find(gateway))
    answers = [
        gateway.pay(reference=spelling),
        gateway.pay(metadata={"order": spelling}),
        gateway.pay(metadata={spelling: "order"}),
    ]
    assert [field for answer in answers[:2] for field, _ in errors(answer)] == ["reference", "metadata.order"]
    assert len(errors(answers[2])) == 1
    assert ids(find(gateway, reference=spelling)) == []
    assert ids(find(gateway)) == before
    for text in (*(answer.text for answer in answers), gateway.log):
        assert spelling not in text
        assert CARD not in text


def test_limits_of_what_a_merchant_may_write(gateway: Gateway) -> None:
    """The largest values are accepted, and each further one is an error of its own field."""
    largest = {"reference": "~" * 80, "metadata": {f"{number:02}": "\U0001f600" * 200 for number in range(20)}}
    assert gateway.pay(**largest).status_code == 201
    for changes, field in (
        ({"reference": "~" * 81}, "reference"),
        ({"reference": ""}, "reference"),
        ({"reference": "tab\t"}, "reference"),
        ({"reference": 7}, "reference"),
        ({"metadata": {f"n{number}": "" for number in range(21)}}, "metadata"),
        ({"metadata": {"order": "x" * 201}}, "metadata.order"),
        ({"metadata": {"order": 7}}, "metadata.order"),
        ({"metadata": ["order"]}, "metadata"),
    ):
        assert [found for found, _ in errors(gateway.pay(**changes))] == [field], changes


def test_a_body_of_64_kib_is_read_and_no_more(gateway: Gateway) -> None:
    body = json.dumps(valid_payment()).encode()
    for size, status in ((65536, 201), (65537, 413)):
        headers = {"Content-Type": "application/json"}
        answer = gateway.session.post(f"{gateway.api}/payments", data=body.ljust(size), headers=headers, timeout=60)
        assert answer.status_code == status


def test_reference_and_metadata_belong_to_the_payment_of_a_key(gateway: Gateway) -> None:
    """Another reference, another metadata, or none, is another payment; the order of the metadata does not matter."""
    headers = {"Idempotency-Key": "find-1"}

    def pay(**changes: Any) -> requests.Response:
        body = valid_payment(**changes)
        return gateway.session.post(f"{gateway.api}/payments", json=body, headers=headers, timeout=60)

    made = pay(reference="with key", metadata={"a": "1", "b": "2"})
    again = pay(reference="with key", metadata={"b": "2", "a": "1"})
    assert (again.status_code, again.json()) == (201, made.json())
    assert again.headers["Idempotent-Replayed"] == "true"
    for changes in (
        {},
        {"reference": "with key"},
        {"reference": "other", "metadata": {"a": "1", "b": "2"}},
        {"reference": "with key", "metadata": {"a": "1", "b": "3"}},
    ):
        assert pay(**changes).status_code == 422, changes
    assert ids(find(gateway, reference="with key")) == [made.json()["id"]]


def test_an_erased_payment_is_not_found(gateway: Gateway) -> None:
    """Nor is its reference or metadata in what an operator reads."""
    erased = gateway.pay(reference="to erase", metadata={"name": "Ada"}).json()["id"]
    kept = gateway.pay(reference="to erase").json()["id"]
    assert gateway.operate("erase", erased).returncode == 0
    assert ids(find(gateway, reference="to erase")) == [kept]
    assert erased not in ids(find(gateway, limit=100))
    assert "Ada" not in gateway.operate("show", erased, "--json").stdout


def test_pages_are_complete_while_payments_are_made(gateway: Gateway) -> None:
    """Each payment that was there is on exactly one page, with and without a status."""
    there = [gateway.pay(reference="busy").json()["id"] for _ in range(12)][::-1]
    ended = threading.Event()

    def pay_on() -> None:
        with requests.Session() as session:
            session.headers["Authorization"] = f"Bearer {KEYS['acme']}"
            while not ended.is_set():
                session.post(f"{gateway.api}/payments", json=valid_payment(reference="busy"), timeout=60)

    payers = [threading.Thread(target=pay_on) for _ in range(2)]
    for payer in payers:
        payer.start()
    try:
        for query in ({"reference": "busy"}, {"reference": "busy", "status": "AUTHORIZED"}):
            found = pages(gateway, limit=3, **query)
            assert len(found) == len(set(found))
            assert [payment for payment in found if payment in set(there)] == there
    finally:
        ended.set()
        for payer in payers:
            payer.join(60)
    assert len(pages(gateway, reference="busy", limit=100)) > len(there)


@pytest.mark.parametrize("changes", [{}, {"capture": False}])
def test_the_fingerprint_of_a_payment_without_them_is_that_of_before(tmp_path: Path, changes: dict[str, Any]) -> None:
    """A key that was used with version 0.9.0 still matches its payment."""
    settings = {"STORE_URL": f"sqlite:///{tmp_path}/payments.db", "FINGERPRINT_KEY": "0f" * 32}
    with Gateway(settings=settings) as gateway:
        headers = {"Idempotency-Key": "find-2"}
        body = valid_payment(**changes)
        gateway.session.post(f"{gateway.api}/payments", json=body, headers=headers, timeout=60)
    engine = sa.create_engine(settings["STORE_URL"])
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT payment_fingerprint FROM payments")) == FINGERPRINT_OF_0_9_0
    engine.dispose()
