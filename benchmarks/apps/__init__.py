"""The applications that are served: the same one with FastAPI's background tasks, and with durable ones."""
