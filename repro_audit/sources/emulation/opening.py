"""Standing in for `open`, and files that have a given content."""

from __future__ import annotations

import builtins
import io
import os
import pathlib
from collections.abc import Callable
from typing import Any

from repro_audit.replacements import Replacements


def replace_open(new: Callable[..., Any], replacements: Replacements) -> None:
    """Replace `open` wherever Python code looks it up."""
    replacements.function(io, "open", new)
    replacements.attribute(builtins, "open", new)
    accessor = getattr(pathlib, "_NormalAccessor", None)  # Python 3.10 looks it up there
    if accessor is not None:
        replacements.attribute(accessor, "open", staticmethod(new))


def holding(content: bytes) -> int | None:
    """The descriptor of a file with this content; None where the system makes none out of memory."""
    if not hasattr(os, "memfd_create"):
        return None
    file = os.memfd_create("given")
    os.write(file, content)
    os.lseek(file, 0, os.SEEK_SET)
    return file
