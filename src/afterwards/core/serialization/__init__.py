"""Values to JSON and back, as the annotations of a task function say."""
