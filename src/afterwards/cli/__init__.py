"""The command line, ``afterwards``: one command, one file."""
