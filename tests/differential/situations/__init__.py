"""Situations, by subject."""
