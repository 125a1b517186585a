"""Hooks of Schemathesis that let TraceCov report which parts of the contract a run has tried (`make fuzz`)."""

import tracecov.schemathesis

tracecov.schemathesis.install()
