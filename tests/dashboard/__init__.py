"""The dashboard: who may see it, its API, and its way into an application."""
