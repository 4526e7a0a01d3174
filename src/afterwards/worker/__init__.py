"""Runs tasks: claims them, resolves what they depend on, calls them, and reports how they ended."""
