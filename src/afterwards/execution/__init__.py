"""One attempt of a task: its arguments, dependencies, threads, processes and context."""
