"""The gateways of a chaos run, which are killed and started again."""

import contextlib
import random
import time
from pathlib import Path

from tests.chaos.faulty_bank import FaultyBank
from tests.support import Gateway

SKEWED = Path(__file__).parents[1] / "skewed_clock.py"

# How likely it is that a gateway dies in a batch of writes, before its commit or while PostgreSQL works on it.
DIE_IN_BATCHES = 0.004


class Cluster:
    """Two gateways, either of which may be down when a client calls it.

    banks: the banks between which gateways move
    skews_s: by how many seconds the clock of the second gateway may differ
    faults: answers of gateways that have ended, which break the contract
    """

    def __init__(
        self, settings: dict[str, str], folder: Path, banks: list[FaultyBank], skews_s: list[int], rng: random.Random
    ) -> None:
        self._settings, self._folder, self._banks, self._skews_s, self._rng = settings, folder, banks, skews_s, rng
        self._at, self._deadliness = [0, 0], DIE_IN_BATCHES
        self._gateways = [self._start(number) for number in range(2)]
        self._logs: list[str] = []
        self.faults: list[str] = []

    def _start(self, number: int) -> Gateway:
        settings = {
            **self._settings,
            "BANK_URL": self._banks[self._at[number]].url,
            "CLOCK_OFFSET_S": str(self._rng.choice(self._skews_s) if number else 0),
            "DIE_IN_BATCHES": str(self._deadliness),
        }
        return Gateway(script=SKEWED, cwd=self._folder, settings=settings, LOG_LEVEL="DEBUG")

    def api(self, rng: random.Random) -> str:
        return rng.choice(self._gateways).api

    def bank_of(self, number: int) -> int:
        return self._at[number]

    def at_other_bank(self, number: int) -> int:
        return (self._at[number] + 1) % len(self._banks)

    def kill(self, number: int, bank: int) -> None:
        """Kill one with SIGKILL, and start another in its place, at this bank."""
        self._at[number] = bank
        self._gateways[number].process.kill()
        self._end(self._gateways[number])
        while True:
            with contextlib.suppress(AssertionError):  # while the database is down it does not start
                self._gateways[number] = self._start(number)
                return
            time.sleep(0.2)

    def replace_dead(self) -> int:
        """Start those again that have died in a batch; return how many."""
        dead = [number for number in range(2) if self._gateways[number].process.poll() is not None]
        for number in dead:
            self.kill(number, self._at[number])
        return len(dead)

    def spread(self) -> None:
        """Let each bank have a gateway that lives and whose clock is right, so that all payments can be resolved."""
        self._skews_s, self._deadliness = [0], 0.0
        for number in range(2):
            self.kill(number, number % len(self._banks))

    def stop(self) -> str:
        """Stop both, and return everything that any gateway printed."""
        for gateway in self._gateways:
            gateway.process.terminate()
            self._end(gateway)
        return "".join(self._logs)

    def _end(self, gateway: Gateway) -> None:
        try:
            gateway.__exit__()
        except AssertionError as error:
            self.faults.append(str(error))
        self._logs += [gateway.banner, gateway.log]
