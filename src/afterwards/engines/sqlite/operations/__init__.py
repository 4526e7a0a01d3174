"""The engine's operations on rows. Each runs in a transaction that others share."""
