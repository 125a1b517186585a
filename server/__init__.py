"""What carries HTTP: uvicorn and its limits, and the middleware around the operations."""
