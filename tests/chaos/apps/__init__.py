"""The applications that are killed: `uvicorn chaos.apps.orders:app`."""
