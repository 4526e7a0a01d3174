"""An engine as senders use it: calls are stored, handles ask about tasks."""
