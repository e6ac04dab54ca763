"""Benchmarks: ratios to a peer, measured in one run. They are not tests; run ``python -m tests.benchmarks``.

What measures is :mod:`minires.bench`, which ``minires bench`` uses too.
"""
