"""A small shop: a complete application that uses afterwards."""
