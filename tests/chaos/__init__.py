"""Servers that are killed, what they wrote down until then, and a judge who reads it."""
