"""A merchant of a chaos run, who sends a request until it has an answer, as the documents say."""

import contextlib
import random
import secrets
import threading
import time
from typing import Any

import requests

from tests import support
from tests.chaos.cluster import Cluster
from tests.chaos.tally import Tally

# Four digits that occur in no amount and no card number here; CVVs are searched for as whole words.
CVV = "7391"

# Seconds after the end of the load in which clients still retry.
PATIENCE_S = 30

MISBEHAVING = [support.DROPPED, support.DROPPED_BEFORE, support.SILENT, support.FAILED, support.GARBAGE]


class Client(threading.Thread):
    """A merchant that makes payments and acts on them until the time is up, and retries until it has an answer."""

    def __init__(self, cluster: Cluster, rng: random.Random, until: float, tally: Tally) -> None:
        super().__init__()
        self._cluster, self._rng, self._until, self._tally = cluster, rng, until, tally
        self._session = requests.Session()
        self._session.trust_env = False

    def run(self) -> None:
        with self._session:
            while time.monotonic() < self._until:
                amount = self._rng.randint(10_000, 10**11)
                body = support.valid_payment(card_number=self._card(), amount=amount, cvv=CVV)
                body["capture"] = self._rng.random() < 0.1  # a sale
                with self._tally.lock:
                    self._tally.cards.add(body["card_number"])
                payment = self._until_answered("payments", body)
                if payment is not None and payment["status"] != "DECLINED":
                    for _ in range(self._rng.randint(0, 3)):
                        self._act(payment)

    def _card(self) -> str:
        if self._rng.random() < 0.2:
            return self._rng.choice(MISBEHAVING)
        card = f"{self._rng.randint(4 * 10**14, 5 * 10**14 - 1)}{self._rng.randint(1, 9)}"  # a 0 is always a 503
        return self._card() if card.endswith(CVV) else card  # the last four digits are recorded

    def _act(self, payment: dict[str, Any]) -> None:
        (kind,) = self._rng.choices(["captures", "voids", "refunds"], [5, 1, 3])
        body: dict[str, Any] = {}
        if kind != "voids" and self._rng.random() < 0.8:
            body["amount"] = self._rng.randint(1, payment["amount"] // 2)
        if kind == "captures":
            body["final"] = self._rng.random() < 0.3
        self._until_answered(f"payments/{payment['id']}/{kind}", body)

    def _until_answered(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """Send a request with a key of its own until it has an answer; return the last payment or action."""
        key, known = secrets.token_urlsafe(16), None  # hex digits may look like a card number
        while True:
            answer = self._send(path, key, {**body, "reference": key})
            if answer is not None and answer.status_code in {201, 202}:
                known = answer.json()
            if self._is_final(answer):
                return known
            time.sleep(0.1)

    def _send(self, path: str, key: str, body: dict[str, Any]) -> requests.Response | None:
        url = f"{self._cluster.api(self._rng)}/{path}"
        answer = None
        with contextlib.suppress(requests.RequestException):
            answer = self._session.post(url, json=body, headers={"Idempotency-Key": key}, timeout=30)
        with self._tally.lock:
            self._tally.requests[_outcome(answer)] += 1
            if answer is not None:
                self._note(key, answer)
        return answer

    def _note(self, key: str, answer: requests.Response) -> None:
        if answer.status_code in {201, 202}:
            now, before = answer.json(), self._tally.answers.get(key)
            may_change = {"PENDING", "AUTHORIZED"}  # a sale is AUTHORIZED until it is captured
            if before and (before["id"] != now["id"] or before["status"] not in {now["status"], *may_change}):
                self._tally.faults.append(f"the answer for key {key} changed: {before} then {now}")
            self._tally.answers[key] = now
        elif answer.status_code not in {409, 503}:
            self._tally.faults.append(f"an unexpected answer: {answer.status_code} {answer.text}")

    def _is_final(self, answer: requests.Response | None) -> bool:
        """Return whether to stop retrying. Most merchants do not wait for what is PENDING or held."""
        now = time.monotonic()
        if answer is not None and answer.status_code == 201:
            return True
        if answer is not None and answer.status_code == 202:
            return self._rng.random() < 0.7 or now > self._until
        if _outcome(answer) in {"409 action_not_allowed", "409 amount_exceeds_available"}:
            return True
        if _outcome(answer) in {"409 action_in_progress", "409 not_supported_by_bank"}:  # perhaps not at the other one
            return self._rng.random() < 0.2 or now > self._until
        return now > self._until + PATIENCE_S


def _outcome(answer: requests.Response | None) -> str:
    if answer is None:
        return "no answer"
    return f"409 {answer.json()['code']}" if answer.status_code == 409 else str(answer.status_code)
