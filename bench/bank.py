"""A bank that needs very little CPU: nginx with its echo module, which authorizes after a fixed time.

When it is asked about a payment, it says that it authorized it.
"""

import contextlib
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.process import until_it_answers

# In milliseconds.
LATENCIES = (0, 50, 200, 1000)

MODULE = Path("/usr/lib/nginx/modules/ngx_http_echo_module.so")

_CONFIGURATION = """
load_module {module};
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log stderr crit;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    default_type application/json;
    {locations}
  }}
}}
"""

_LOCATIONS = """\
location = /{ms}/payments {{ {sleep} echo '{{"authorized": true, "authorization_code": "bench"}}'; }}
    location ~ ^/{ms}/payments/(?<payment_id>[0-9a-f-]+)$ {{
      {sleep} echo '{{"payment_id": "$payment_id", "status": "authorized", "authorization_code": "bench"}}';
    }}"""


@contextlib.contextmanager
def running() -> Iterator[str]:
    """Run the bank and yield its URL. Append a latency in ms to it: URL/50 answers after 50 ms."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    locations = (_LOCATIONS.format(ms=ms, sleep=f"echo_sleep {ms / 1000};" if ms else "") for ms in LATENCIES)
    with tempfile.TemporaryDirectory(prefix="bench-bank-") as folder:
        file = Path(folder) / "nginx.conf"
        file.write_text(
            _CONFIGURATION.format(module=MODULE, folder=folder, port=port, locations="\n    ".join(locations))
        )
        with subprocess.Popen(["nginx", "-p", folder, "-c", str(file)], stderr=subprocess.DEVNULL) as nginx:
            url = f"http://127.0.0.1:{port}"
            until_it_answers(nginx, f"{url}/0/payments")
            try:
                yield url
            finally:
                nginx.terminate()
