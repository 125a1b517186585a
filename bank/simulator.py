"""The built-in bank simulator: an HTTP server with the published rules for test cards. No money moves.

    python -m bank.simulator --port 8080 [--latency 0.05]

The last digit of the card number decides: 1, 3, 5, 7 and 9 are authorized, 2, 4, 6 and 8 declined, and 0 is
answered 503. A request without all five fields, or with another last character, is answered 400. Beyond these rules,
the card numbers in `_instead` and `_afterwards` produce every other kind of answer, and a payment can be looked up.
Captures, voids and refunds are an extension that real banks may lack (bank/acquirer_actions.py), with amounts that
produce every other kind of answer.
Its decisions are at /ledger, and at /ledger.csv as a statement for `run.py reconcile`.

It is a Flask app under uvicorn. Its thread pool is so large that calls which hang on purpose do not delay others.
"""

import argparse
import contextlib
import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final
from uuid import uuid4

import uvicorn
from a2wsgi import WSGIMiddleware
from flask import Blueprint, Flask, Response, request
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bank.acquirer_actions import CAPABILITIES
from bank.ledger import Ledger

# Cards that are authorized, and whose captures or refunds are declined.
DECLINES: Final = {
    "4000000000000259": frozenset({"captures"}),
    "4000000000003238": frozenset({"refunds"}),
}

# Amounts of captures, voids and refunds that the bank does, and answers by closing the connection, or too late; and
# amounts for which it does nothing: it refuses the request, or answers 503.
UNANSWERED: Final = 127_27
LATE: Final = 119_19
REFUSED: Final = 143_43
UNAVAILABLE: Final = 150_50

FIELDS: Final = ("card_number", "expiry_date", "currency", "amount", "cvv")

SLOW_S: Final = 2.0
SILENT_S: Final = 400.0  # longer than the largest BANK_TIMEOUT_S, 300 s
THREADS: Final = 512


class Simulator:
    """A simulator that listens on `url` as soon as it is created.

    url: its address as a bank
    bank_url: the same for `bank.configure`, with the id of this start, by which `bank.identity` names the simulator
    host, port: the address to listen on; port 0 takes a free one
    latency_s: seconds to wait after each decision

    Raises `OSError` when it cannot listen there.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0, latency_s: float = 0.0) -> None:
        self._listener = socket.create_server((host, port))
        self.url = f"http://{host}:{self._listener.getsockname()[1]}"
        self.bank_url = f"simulator{self.url.removeprefix('http')}/{uuid4()}"
        self._stopping = threading.Event()
        flask_app = _create_app(latency_s, self._stopping.wait)
        app = WSGIMiddleware(flask_app, workers=THREADS)  # type: ignore[arg-type]  # it declares its own WSGI types
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=_Protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                timeout_keep_alive=75,  # seconds; longer than a pooled connection is usually idle
                timeout_graceful_shutdown=1,
            )
        )
        self._thread = threading.Thread(target=self.run, name="bank simulator", daemon=True)

    def run(self) -> None:
        """Serve in this thread until `stop()`, or in the main thread until a signal."""
        try:
            self._server.run(sockets=[self._listener])
        finally:
            self._stopping.set()

    def start(self) -> None:
        """Serve in a new thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving, and end calls that hang on purpose at once."""
        self._stopping.set()
        self._server.should_exit = True
        self._thread.join()


def _create_app(latency_s: float, sleep: Callable[[float], object]) -> Flask:
    app = Flask("bank.simulator")
    ledger = Ledger()
    instead, afterwards = _instead(), _afterwards(sleep)

    @app.post("/payments")
    def authorize() -> Response:
        payment = request.get_json(silent=True)
        if not isinstance(payment, dict) or any(field not in payment for field in FIELDS):
            return _reply(400, {"error_message": "Not all required properties were sent in the request"})
        card_number = str(payment["card_number"])
        if card_number in instead:
            return instead[card_number]()
        match "1" if card_number in DECLINES else card_number[-1:]:
            case "1" | "3" | "5" | "7" | "9":
                authorized = True
            case "2" | "4" | "6" | "8":
                authorized = False
            case "0":
                return _reply(503, {})
            case _:
                return _reply(400, {"errorMessage": "The request supplied is not supported by the simulator"})
        payment_id, declines = request.headers.get("Idempotency-Key"), DECLINES.get(card_number, frozenset())
        decision = ledger.decide(payment_id, payment, authorized=authorized, declines=declines)
        sleep(latency_s)
        return afterwards.get(card_number, partial(_reply, 200))(decision)

    @app.get("/payments/<payment_id>")
    def look_up(payment_id: str) -> Response:
        return _reply(200, {"payment_id": payment_id, **ledger.find(payment_id)})

    @app.get("/ledger")
    def show_ledger() -> Response:
        return _reply(200, ledger.all())

    @app.get("/ledger.csv")
    def show_statement() -> Response:
        return Response(ledger.statement(), mimetype="text/csv")

    app.register_blueprint(_actions(ledger, latency_s, sleep))
    return app


def _actions(ledger: Ledger, latency_s: float, sleep: Callable[[float], object]) -> Blueprint:
    """Return the extension for captures, voids and refunds."""
    actions = Blueprint("actions", __name__)

    @actions.get("/capabilities")
    def show_capabilities() -> Response:
        return _reply(200, CAPABILITIES)

    @actions.post("/payments/<payment_id>/<any(captures, voids, refunds):kind>")
    def act(payment_id: str, kind: str) -> Response:
        action = request.get_json(silent=True)
        if not isinstance(action, dict) or not _is_action(action):
            return _reply(400, {"error_message": "Not all required properties were sent in the request"})
        if action["amount"] == REFUSED:
            return _reply(400, {"errorMessage": "refused on demand"})
        if action["amount"] == UNAVAILABLE:
            return _reply(503, {})
        decision = ledger.act(payment_id, kind, action)
        if action["amount"] == UNANSWERED:
            return _drop_connection()
        sleep(SILENT_S if action["amount"] == LATE else latency_s)
        return _reply(200, decision)

    @actions.get("/payments/<payment_id>/actions/<action_id>")
    def look_up_action(payment_id: str, action_id: str) -> Response:
        return _reply(200, {"action_id": action_id, **ledger.find_action(payment_id, action_id)})

    return actions


def _is_action(action: dict[str, Any]) -> bool:
    amount, others = action.get("amount"), (action.get("action_id"), action.get("currency"))
    return type(amount) is int and amount > 0 and all(isinstance(other, str) for other in others)


def _reply(status: int, body: object) -> Response:
    return Response(json.dumps(body), status, mimetype="application/json")


def _instead() -> dict[str, Callable[[], Response]]:
    """Return answers by card number that the bank gives without a decision."""
    return {
        "4000000000000143": lambda: _reply(400, {"errorMessage": "refused on demand"}),
        "4000000000000150": lambda: _reply(500, {"errorMessage": "failed on demand"}),
        "4000000000000192": lambda: Response(status=307, headers={"Location": "/payments"}),
        "4000000000000218": _drop_connection,
    }


def _afterwards(sleep: Callable[[float], object]) -> dict[str, Callable[[dict[str, Any]], Response]]:
    """Return answers by card number that the bank gives after its decision by the last digit."""

    def slow(decision: dict[str, Any]) -> Response:
        sleep(SLOW_S)
        return _reply(200, decision)

    def silent(_: dict[str, Any]) -> Response:
        sleep(SILENT_S)
        return Response()

    def drip() -> Iterator[bytes]:
        for byte in b'{"authorized": false'.ljust(int(SILENT_S)):
            yield bytes([byte])
            sleep(1)

    return {
        "4000000000000101": slow,
        "4000000000000119": silent,
        "4000000000000127": lambda _: _drop_connection(),
        "4000000000000135": lambda _: Response("<html>Bad Gateway</html>", 200, mimetype="text/html"),
        "4000000000000168": lambda _: Response(drip(), 200, mimetype="application/json"),
        "4000000000000176": lambda _: _reply(200, {"authorized": "false", "authorization_code": ""}),
        "4000000000000184": lambda _: _reply(200, {"authorized": False, "padding": " " * 128 * 1024}),
        "4000000000000209": lambda _: _reply(202, {"authorized": True}),
    }


def _drop_connection() -> Response:
    """Reset the connection without sending a byte."""
    loop, transport = request.environ["asgi.scope"]["extensions"]["connection"]
    loop.call_soon_threadsafe(transport.abort)
    return Response()


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol, with the connection in the scope so that `_drop_connection` can reset it.

    The module of the class and its `scope` are private names. Checked on uvicorn 0.54.0.
    """

    scope: Any

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {"connection": (self.loop, self.transport)}


def main() -> None:
    """Run the simulator alone until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m bank.simulator", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080, help="default: 8080; 0 takes a free one")
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS", help="the delay of each decision")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        simulator = Simulator(options.host, options.port, options.latency)
    except OSError as error:
        raise SystemExit(f"cannot listen on {options.host} port {options.port}: {error.strerror}") from None
    print(f"Bank simulator at {simulator.url}; no money moves. Ctrl-C stops it.", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        simulator.run()


if __name__ == "__main__":
    main()
