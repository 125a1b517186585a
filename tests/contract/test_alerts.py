"""The alert rules in deploy/: valid, proven on figures, and about metrics that there are."""

import re
import shutil
import subprocess

import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from telemetry import metrics  # noqa: F401  # they are registered by that
from tests.support import ROOT

PROMTOOL = shutil.which("promtool")


@pytest.mark.skipif(PROMTOOL is None, reason="there is no promtool on this machine")
@pytest.mark.parametrize(
    "arguments",
    [("check", "rules", "alerts.yml"), ("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml")],
    ids=" ".join,
)
def test_promtool_finds_nothing(arguments: tuple[str, ...]) -> None:
    """Rules and configuration are valid, and each alert comes when it should and not when it should not."""
    run = subprocess.run(["promtool", *arguments], cwd=ROOT / "deploy", capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_every_metric_in_the_rules_is_measured() -> None:
    """A rule about a name that nothing has would never fire."""
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
