"""The alert rules in deploy/: they are valid, fire on the right values, and use existing metrics."""

import re
import shutil
import subprocess

import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from telemetry import metrics  # noqa: F401  # the import registers the metrics
from tests.support import ROOT

PROMTOOL = shutil.which("promtool")


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
@pytest.mark.parametrize(
    "arguments",
    [("check", "rules", "alerts.yml"), ("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml")],
    ids=" ".join,
)
def test_promtool_finds_no_fault(arguments: tuple[str, ...]) -> None:
    """Rules and configuration are valid, and each alert fires when it should and only then."""
    run = subprocess.run(["promtool", *arguments], cwd=ROOT / "deploy", capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_rules_use_existing_metrics_only() -> None:
    """The gateway exports every metric that a rule names; a rule on any other would never fire."""
    groups = yaml.safe_load((ROOT / "deploy" / "alerts.yml").read_text())["groups"]
    rules = "\n".join(rule["expr"] for group in groups for rule in group["rules"])
    named = set(re.findall(r"payment_gateway_\w+", rules))
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}
    measured = {
        family.name + suffix
        for family in text_string_to_metric_families(generate_latest().decode())
        for suffix in suffixes.get(family.type, [""])
    }
    assert named
    assert named <= measured
