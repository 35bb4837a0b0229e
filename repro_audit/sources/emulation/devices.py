"""What a program reads from `/dev/urandom` by itself, and the names that `tempfile` makes up, from a given stream."""

from __future__ import annotations

import builtins
import os
import sys
import tempfile
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

from repro_audit.replacements import Replacements
from repro_audit.sources.emulation.opening import holding, replace_open
from repro_audit.sources.emulation.stat import replace_with_support

if TYPE_CHECKING:
    Draw = Callable[[int, FrameType | None], bytes | None]
    """Bytes for whoever is calling; None for one who shall have the operating system's."""

DEVICES = ("/dev/urandom", "/dev/random")
MOST = 1 << 22
"""Bytes that a program finds in such a file each time that it opens it: it has to be made before it is read."""
NAME_BYTES = 8


def replace_devices(draw: Draw, replacements: Replacements) -> None:
    """`open`, `io.open`, `os.open` and `Path.open` of a device of random numbers: any way to read finds ours."""
    if not hasattr(os, "memfd_create"):
        return
    opened, descriptor = builtins.open, os.open

    def filled(path: Any, frame: FrameType | None) -> int | None:
        if not isinstance(path, (str, bytes, os.PathLike)) or os.fsdecode(path) not in DEVICES:
            return None
        drawn = draw(MOST, frame)
        return None if drawn is None else holding(drawn)

    def open_(file: Any, mode: Any = "r", *args: Any, **kwargs: Any) -> Any:
        reads = isinstance(mode, str) and "r" in mode
        made = filled(file, sys._getframe(1)) if reads else None
        return opened(file if made is None else made, mode, *args, **kwargs)

    def os_open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        made = filled(path, sys._getframe(1)) if not flags & os.O_ACCMODE else None
        return descriptor(path, flags, mode, dir_fd=dir_fd) if made is None else made

    replace_open(open_, replacements)
    replace_with_support(os, "open", os_open, replacements)


def replace_names(draw: Draw, replacements: Replacements) -> None:
    """The names of temporary files and directories."""
    names: Any = tempfile._RandomNameSequence  # type: ignore[attr-defined]
    following = names.__next__

    def follow(sequence: Any) -> str:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename == tempfile.__file__:
            frame = frame.f_back
        drawn = draw(NAME_BYTES, frame)
        if drawn is None:
            name: str = following(sequence)
            return name
        return "".join(sequence.characters[byte % len(sequence.characters)] for byte in drawn)

    replacements.attribute(names, "__next__", follow)
