"""Load, by wrk: so many connections for so long, or a rate that is well below what any server can carry."""

import json
import subprocess
import tempfile
from dataclasses import dataclass

PAYMENT = {
    "card_number": "2222405343248877",
    "expiry_month": 12,
    "expiry_year": 2099,
    "currency": "GBP",
    "amount": 1050,
    "cvv": "123",
}

_SCRIPT = """
{request}
{delay}
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {{"requests": %d, "us": %d, "failed": %d, "p50": %f, "p99": %f, "p999": %f}}',
    summary.requests, summary.duration, errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
"""
_POST = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{body}'
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk saw. Latencies in milliseconds, of the client's."""

    requests: int
    failed: int
    per_s: float
    p50_ms: float
    p99_ms: float
    p999_ms: float


def run(url: str, *, post: bool, connections: int, seconds: float, per_s: float | None = None) -> Load:
    """Send as much as `connections` can, or `per_s` requests a second, at random intervals."""
    delay = ""
    if per_s is not None:  # on average; the time that an answer takes comes on top, and is small beside it
        delay = f"function delay() return math.random(0, {int(2000 * connections / per_s)}) end"
    request = _POST.format(body=json.dumps(PAYMENT)) if post else ""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_SCRIPT.format(request=request, delay=delay))
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout=30s", f"-s{script.name}", url]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result = json.loads(said.rpartition("RESULT ")[2])
    return Load(
        requests=result["requests"],
        failed=result["failed"],
        per_s=result["requests"] / result["us"] * 1e6,
        p50_ms=result["p50"] / 1000,
        p99_ms=result["p99"] / 1000,
        p999_ms=result["p999"] / 1000,
    )
