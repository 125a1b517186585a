"""Run run.py without the check of whose payment it is: every merchant is shown every payment."""

import sys
from pathlib import Path
from uuid import UUID

sys.path.insert(0, str(Path(__file__).parents[2]))

import payments
import store
from tests.contract import checked


async def find(merchant: str, payment_id: UUID) -> store.Payment | None:  # noqa: ARG001  # that is the mistake
    return await store.find(payment_id)


payments.find = find
checked.main()
