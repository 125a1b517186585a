"""The HTTP server: uvicorn with limits, and the middleware around the operations."""
