"""What is logged, and what never is.

Logs go to standard error, a line each. What the gateway's own modules say is safe by construction: no
card number, no CVV, no path, no exception's words. What libraries say is not: urllib3, for one, quotes
the broken header of a bank's reply, which may echo the card. So of theirs only the place is shown.
"""

import logging


def configure(level: str) -> None:
    """Log what the gateway says from `level` on, and that libraries warn, where they do."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    of_libraries = max(logging.WARNING, logging.getLevelNamesMapping()[level])
    logging.basicConfig(level=of_libraries, handlers=[handler])
    logging.getLogger("gateway").setLevel(level)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # it warns of every malformed request


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        if not record.name.startswith("gateway."):
            words = f"at {record.filename}:{record.lineno} (its words are withheld: they may hold a card)"
            record = logging.LogRecord(record.name, record.levelno, "", 0, words, None, None)
        return super().format(record)
