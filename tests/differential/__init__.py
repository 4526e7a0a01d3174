"""FastAPI's background tasks, ours on plain functions and ours on task functions, over real HTTP, compared."""
