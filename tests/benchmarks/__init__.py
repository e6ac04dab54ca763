"""Benchmarks: ratios to a peer, measured in one run. They are not tests; run ``python -m tests.benchmarks``."""
