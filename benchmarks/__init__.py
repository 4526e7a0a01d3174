"""Benchmarks against peers, side by side, as ratios: ``python -m benchmarks`` or ``python -m benchmarks enqueue``."""
