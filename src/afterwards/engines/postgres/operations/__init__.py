"""The engine's operations, each with its SQL."""
