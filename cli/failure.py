"""Why a process can't start."""

import store


def reason(error: Exception) -> str:
    """Return in one line why a process can't start."""
    match error:
        case store.StoreMismatch():
            return f"STORE_URL can't be used: {error}"
        case store.StoreUnavailable():
            return f"the store at STORE_URL can't be used now: {error}"
    return str(error)
