"""The dashboard: the HTTP API, the live stream and the pages."""
