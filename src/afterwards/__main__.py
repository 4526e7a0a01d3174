"""``python -m afterwards``: the same as the command ``afterwards``."""

from afterwards.cli.main import main

main()
