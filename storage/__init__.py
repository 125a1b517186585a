"""Where payments are kept: in memory or in a database. store.py is what the rest of the gateway calls."""
