"""The sender's side of an engine: storing calls, and handles for asking about tasks."""
