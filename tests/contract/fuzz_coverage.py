"""The hooks of `make fuzz`: TraceCov reports which parts of the contract a run has tried."""

import tracecov.schemathesis

from tests.contract import fuzz_names

__all__ = ["fuzz_names"]

tracecov.schemathesis.install()
