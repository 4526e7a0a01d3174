"""Hand tasks to a fleet of other software, which runs them in processes of its own."""
