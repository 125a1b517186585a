"""A merchant of a chaos run, who sends a request until it has an answer, as the documents say."""

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
    """A merchant that makes payments until the time is up, and retries each until it has an answer."""

    def __init__(self, cluster: Cluster, rng: random.Random, until: float, tally: Tally) -> None:
        super().__init__()
        self._cluster, self._rng, self._until, self._tally = cluster, rng, until, tally
        self._session = requests.Session()
        self._session.trust_env = False

    def run(self) -> None:
        with self._session:
            while time.monotonic() < self._until:
                body = support.valid_payment(
                    card_number=self._card(), amount=self._rng.randint(10_000, 10**11), cvv=CVV
                )
                with self._tally.lock:
                    self._tally.cards.add(body["card_number"])
                key = secrets.token_hex(16)
                while not self._is_final(self._send(key, body)):
                    time.sleep(0.1)

    def _card(self) -> str:
        if self._rng.random() < 0.2:
            return self._rng.choice(MISBEHAVING)
        card = f"{self._rng.randint(4 * 10**14, 5 * 10**14 - 1)}{self._rng.randint(1, 9)}"  # a 0 is always a 503
        return self._card() if card.endswith(CVV) else card  # the last four digits are recorded

    def _send(self, key: str, body: dict[str, Any]) -> str:
        url = f"{self._cluster.api(self._rng)}/payments"
        try:
            answer = self._session.post(url, json=body, headers={"Idempotency-Key": key}, timeout=30)
        except requests.RequestException:
            outcome = "no answer"
        else:
            outcome = str(answer.status_code)
            self._note(key, answer)
        with self._tally.lock:
            self._tally.requests[outcome] += 1
        return outcome

    def _note(self, key: str, answer: requests.Response) -> None:
        with self._tally.lock:
            if answer.status_code in {201, 202}:
                payment, before = answer.json(), self._tally.answers.get(key)
                if before and (before["id"] != payment["id"] or before["status"] not in {payment["status"], "PENDING"}):
                    self._tally.faults.append(f"the answer for key {key} changed: {before} then {payment}")
                self._tally.answers[key] = payment
            elif answer.status_code not in {409, 503}:
                self._tally.faults.append(f"an unexpected answer: {answer.status_code} {answer.text}")

    def _is_final(self, outcome: str) -> bool:
        """Return whether to stop retrying. Most merchants do not wait for a PENDING payment."""
        if outcome == "202":
            return self._rng.random() < 0.7 or time.monotonic() > self._until
        return outcome not in {"409", "503", "no answer"} or time.monotonic() > self._until + PATIENCE_S
