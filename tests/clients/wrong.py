"""Programs with two mistakes each, a payment with nothing but a month and an amount in words, and what checkers say."""

from typing import Final

_PYTHON: Final = """\
from payment_gateway_api_client.models import Currency, PaymentRequest
PaymentRequest(expiry_month=1)
PaymentRequest("2222405343248877", 12, 2099, Currency.GBP, "ten", "123")
"""
_PYDANTIC: Final = """\
from payment_gateway_client import Currency, PaymentRequest
PaymentRequest(expiry_month=1)
PaymentRequest(card_number="2222405343248877", expiry_month=12, expiry_year=2099,
               currency=Currency.GBP, cvv="123", amount="ten")
"""
_GO: Final = """\
package main
import gateway "shop/gateway-go"
func main() {
	gateway.NewPaymentRequest(1)
	gateway.NewPaymentRequest("2222405343248877", 12, 2099, gateway.CURRENCY_GBP, "ten", "123")
}
"""
_TYPESCRIPT: Final = """\
import createClient from "openapi-fetch";
import type { paths } from "./gateway.d.ts";
const client = createClient<paths>();
await client.POST("/payments", { body: { expiry_month: 1 } });
const card = { card_number: "2222405343248877", expiry_month: 12, expiry_year: 2099, cvv: "123" };
await client.POST("/payments", { body: { ...card, currency: "GBP", amount: "ten" } });
"""
_HEY_API: Final = """\
import { createPayment } from "./gateway-typescript/index.js";
await createPayment({ body: { expiry_month: 1 } });
const card = { card_number: "2222405343248877", expiry_month: 12, expiry_year: 2099, cvv: "123" };
await createPayment({ body: { ...card, currency: "GBP", amount: "ten" } });
"""
_MISSING: Final = ("card_number", "expiry_year", "currency", "amount", "cvv")
_ALL: Final = (
    '{ card_number: string; expiry_month: number; expiry_year: number; currency: "GBP" | "USD" | "CNY";'
    " amount: number; cvv: string; capture?: boolean | undefined; reference?: string | undefined;"
    " metadata?: ({ ...; } & {}) | undefined; } & {}"
)


def _quoted(name: str) -> str:
    return f'"{name}"'


# For each file its program, and the messages with the numbers of their lines.
WRONG: Final[dict[str, tuple[str, list[str]]]] = {
    "wrong_python.py": (
        _PYTHON,
        [
            f'2: Missing positional arguments {", ".join(map(_quoted, _MISSING))} in call to "PaymentRequest"',
            '3: Argument 5 to "PaymentRequest" has incompatible type "str"; expected "int"',
        ],
    ),
    "wrong_pydantic.py": (
        _PYDANTIC,
        [
            *(f'2: Missing named argument "{name}" for "PaymentRequest"' for name in _MISSING),
            '4: Argument "amount" to "PaymentRequest" has incompatible type "str"; expected "int"',
        ],
    ),
    "wrong/main.go": (
        _GO,
        [
            "4: not enough arguments in call to gateway.NewPaymentRequest",
            '5: cannot use "ten" (untyped string constant) as int64 value in argument to gateway.NewPaymentRequest',
        ],
    ),
    "wrong_typescript.ts": (
        _TYPESCRIPT,
        [
            f"4: Type '{{ expiry_month: number; }}' is not assignable to type '{_ALL}'.",
            "6: Type 'string' is not assignable to type 'number'.",
        ],
    ),
    "wrong_hey_api.ts": (
        _HEY_API,
        [
            "2: Type '{ expiry_month: number; }' is missing the following properties from type 'PaymentRequest': "
            + ", ".join(_MISSING),
            "4: Type 'string' is not assignable to type 'number'.",
        ],
    ),
}
