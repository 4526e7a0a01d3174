"""A small shop, as somebody would write it who uses afterwards."""
