"""Benchmarks against peers, side by side, as ratios: ``python -m benchmarks`` or ``python -m benchmarks enqueue``."""

import sys
from pathlib import Path

# The tests' servers import each other by the names that pytest gives them.
sys.path.append(str(Path(__file__).parents[1] / "tests"))
