"""Benchmarks: ratios, each measured side by side in one run.

`python -m tests.benchmarks [--quick]` prints the table.
"""
