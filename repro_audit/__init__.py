"""Audit the reproducibility of PyTorch training, by running it.

From Python: `audit` runs an audit and returns its report, `assert_reproducible` is an assertion for tests. What
trainings themselves use is in `repro_audit.rng`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repro_audit.api import Report, assert_reproducible, audit

__all__ = ["Report", "__version__", "assert_reproducible", "audit"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """What needs most of the package is imported when it is asked for: trainings import `repro_audit.rng` alone."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.api"), name)
