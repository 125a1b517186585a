"""deploy/grafana-dashboard.json: its queries are valid and find what a running gateway measures."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from tests import support
from tests.support import ROOT, Gateway, wait_until

DASHBOARD = json.loads((ROOT / "deploy" / "grafana-dashboard.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
SELECTOR = re.compile(r"(payment_gateway_\w+)(?:{(.*?)})?")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_every_query_is_valid(tmp_path: Path) -> None:
    """promtool accepts each as the expression of a rule, with an interval in the place of Grafana's variable."""
    queries = [query.replace("$__rate_interval", "1m") for query in QUERIES]
    rules = [{"record": f"query_{number}", "expr": query} for number, query in enumerate(queries)]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    checked = subprocess.run(
        ["promtool", "check", "rules", str(tmp_path / "rules.yml")], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_query_selects_what_a_gateway_exposes() -> None:
    """Each selector, with its labels, and each label that a query groups by, is in the metrics after three payments."""
    with Gateway(METRICS_PORT="0") as gateway:
        cards = (support.AUTHORIZED_CARD, support.DROPPED, "42")
        assert [gateway.pay(card_number=card).status_code for card in cards] == [201, 202, 400]
        found = re.search(r"Metrics (http://\S+/metrics)", gateway.banner)
        assert found is not None
        url = found[1]
        wait_until(lambda: "payment_gateway_resolved_total{" in requests.get(url, timeout=10).text, 20)
        text = requests.get(url, timeout=10).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    for query in QUERIES:
        (grouped,) = re.findall(r"by \((\w+)\)", query) or ["instance"]
        (name, matchers), *others = SELECTOR.findall(query)
        assert not others
        wanted = re.findall(r'(\w+)=~?"(.*?)"', matchers)
        assert any(
            sample.name == name
            and all(re.fullmatch(value, sample.labels.get(label, "")) for label, value in wanted)
            and (grouped == "instance" or grouped in sample.labels)  # Prometheus adds the instance
            for sample in samples
        ), query
