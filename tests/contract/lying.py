"""run.py whose payments have a field that the contract does not name: the card number, as name and as value."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from handlers import shown
from tests.contract import checked
from tests.support import AUTHORIZED_CARD

payment = shown.payment


def _with_card(of: Any) -> dict[str, Any]:
    return {**payment(of), AUTHORIZED_CARD: AUTHORIZED_CARD}


setattr(shown, "payment", _with_card)  # noqa: B010  # mypy has it fixed

if __name__ == "__main__":  # worker processes import this module, too
    checked.main()
