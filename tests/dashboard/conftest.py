from dashboard.fixtures import house, http, store

__all__ = ["house", "http", "store"]
