"""Audit the reproducibility of PyTorch training, by running it."""

__version__ = "0.1.0"
