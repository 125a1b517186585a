"""Where records are kept: memory or a database, behind store.py, which the rest of the gateway calls."""
