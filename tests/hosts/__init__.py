"""Hosts: network namespaces where this machine allows them."""
