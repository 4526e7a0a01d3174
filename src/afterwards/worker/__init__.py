"""Runs tasks: claims them, resolves their dependencies, calls their functions, and reports how they ended."""
