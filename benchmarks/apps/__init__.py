"""The served applications: one with FastAPI's background tasks, the same with durable tasks."""
