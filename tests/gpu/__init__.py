"""What only a CUDA device can show: `python -m tests.gpu` runs all of it, and prints a table.

`programs` are audited; `checks` look at single parts; `rows` runs both, each caught by itself, within a time limit.
"""
