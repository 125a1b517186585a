"""Put a server under load with wrk: as much as its connections can carry, or at a moderate rate."""

import json
import subprocess
import tempfile
from collections.abc import Sequence
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
_PATHS = """
local paths, place = {{ {paths} }}, 0
function request()
  place = place % #paths + 1
  return wrk.format(nil, paths[place])
end
"""
_POST = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{body}'
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk measured. Latencies are the client's, in milliseconds; failed includes every answer but 2xx and 3xx."""

    requests: int
    failed: int
    per_s: float
    p50_ms: float
    p99_ms: float
    p999_ms: float


def run(
    url: str,
    *,
    post: bool,
    connections: int,
    seconds: int,
    per_s: float | None = None,
    paths: Sequence[str] = (),
) -> Load:
    """Send requests on `connections` connections for `seconds`: one after the other, or about `per_s` per second.

    paths: of the requests, in turn, in place of the URL's own
    """
    delay = ""
    if per_s is not None:  # uniform delays; the time of an answer comes on top, and is short in comparison
        delay = f"function delay() return math.random(0, {int(2000 * connections / per_s)}) end"
    request = _POST.format(body=json.dumps(PAYMENT)) if post else ""
    if paths:
        request += _PATHS.format(paths=", ".join(map(json.dumps, paths)))
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_SCRIPT.format(request=request, delay=delay))
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout=30s", f"-s{script.name}", url]
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
