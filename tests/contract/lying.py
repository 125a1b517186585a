"""run.py whose payments have a field that the contract does not name: the card number, as name and as value."""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from starlette.responses import Response

from handlers import payments
from tests.contract import checked
from tests.support import AUTHORIZED_CARD

shown = payments._shown


def _shown(payment: Any, status: int, headers: dict[str, str]) -> Response:
    content = json.loads(bytes(shown(payment, status, headers).body))
    more = json.dumps({**content, AUTHORIZED_CARD: AUTHORIZED_CARD})
    return Response(more, status, headers, "application/json")


setattr(payments, "_shown", _shown)  # noqa: B010  # mypy has it fixed

if __name__ == "__main__":  # worker processes import this module, too
    checked.main()
