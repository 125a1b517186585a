"""The command `reconcile`: how an operator compares the bank's statement with the payments that are recorded here."""

import argparse
import json
from pathlib import Path
from typing import Any, Final

from cli import arguments, table
from cli.answer import Answer
from payments import reconciliation
from payments.reconciliation import COLUMNS, OPTIONAL_COLUMNS, Difference, Finding, Malformed, Period, Report

# The exit status when something differs, and when the statement can't be read.
DIFFERS: Final = 1
UNREADABLE: Final = 2


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    reconcile = commands.add_parser(
        "reconcile", help="compare the bank's statement with the payments; exit with status 1 if anything differs"
    )
    reconcile.add_argument(
        "file",
        type=Path,
        metavar="FILE.csv",
        help=f"the statement, with the columns {', '.join(COLUMNS)}, and perhaps {', '.join(OPTIONAL_COLUMNS)}",
    )
    must_have = "a payment counts as missing there if it was"
    reconcile.add_argument("--since", type=arguments.time, metavar="TIME", help=f"{must_have} made since this time")
    reconcile.add_argument("--until", type=arguments.time, metavar="TIME", help=f"{must_have} made before this time")
    reconcile.add_argument("--bank", metavar="BANK", help=f"{must_have} sent to this bank, as `pending` shows it")
    reconcile.add_argument("--json", action="store_true", help="print JSON")


async def run(options: argparse.Namespace) -> Answer:
    """Run the command."""
    period = Period(since=options.since, until=options.until, bank=options.bank)
    try:
        # What is not UTF-8 is replaced: the check of its line refuses it, in a column that counts.
        with options.file.open(encoding="utf-8-sig", errors="replace", newline="") as text:
            report = await reconciliation.compare(reconciliation.read(text), period)
    except OSError as error:
        return Answer(UNREADABLE, message=f"{options.file} can't be read: {error.strerror}")
    except Malformed as error:
        return Answer(UNREADABLE, message=f"{options.file} {error}")
    more = report.differing() - len(report.differences)
    message = f"{more} more differences are not listed" if more else ""
    return Answer(DIFFERS if report.differing() else 0, _shown(report, as_json=options.json), message)


def _shown(report: Report, *, as_json: bool) -> str:
    counts = {str(finding): report.counts[finding] for finding in Finding}
    rows = [_row(difference) for difference in report.differences]
    if as_json:
        return json.dumps({"counts": counts, "differences": rows}, indent=2)
    summary = table.render([{"finding": name, "payments": count} for name, count in counts.items()], as_json=False)
    if not rows:
        return summary
    cells = [{name: "-" if value is None else value for name, value in row.items()} for row in rows]
    return f"{summary}\n\n{table.render(cells, as_json=False)}"


def _row(difference: Difference) -> dict[str, Any]:
    here, there = difference.here, difference.there
    return {
        "finding": difference.finding,
        "id": str(difference.payment_id()),
        "merchant": here and here.merchant,
        "status": here and here.status,
        "amount": here and here.amount,
        "currency": here and here.currency,
        "captured": here and here.captured,
        "refunded": here and here.refunded,
        "bank_outcome": there and there.status.lower(),
        "bank_amount": there and there.amount,
        "bank_currency": there and there.currency,
        "bank_captured": there and there.captured,
        "bank_refunded": there and there.refunded,
    }
