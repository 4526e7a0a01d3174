"""Connections to the server, and the thread that uses them."""
