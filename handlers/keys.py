"""Connexion's hook for the contract's security scheme: a request is a merchant's, or is refused."""

from typing import Any

from connexion.lifecycle import ConnexionRequest

import access
import exchange
from handlers.problems import Code, Problem


class BearerKey:
    """What Connexion asks for a function that knows a request's user, once for each operation."""

    def get_fn(self, _scheme: dict[str, Any], _scopes: list[str]) -> Any:
        return merchant_of


async def merchant_of(request: ConnexionRequest) -> dict[str, str]:
    """Return the merchant as Connexion's `sub`, which handlers get as `user`; or raise `Problem`."""
    if access.is_open():
        merchant: str | None = access.NOBODY_IN_PARTICULAR
    else:
        # A header that stands twice says two things.
        given = request.headers.getlist("Authorization")
        scheme, _, key = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        merchant = access.merchant_of(key.strip(" ")) if scheme.lower() == "bearer" else None
    if merchant is None:
        raise Problem(Code.UNAUTHORIZED)
    exchange.now().merchant = merchant
    return {"sub": merchant}
