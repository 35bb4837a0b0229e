"""What a program reads from `/dev/urandom` by itself, and the names that `tempfile` makes up, from a given stream."""

from __future__ import annotations

import builtins
import io
import os
import pathlib
import sys
import tempfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from repro_audit.replacements import Replacements

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
        if drawn is None:
            return None
        file = os.memfd_create("urandom")
        os.write(file, drawn)
        os.lseek(file, 0, os.SEEK_SET)
        return file

    def open_(file: Any, mode: Any = "r", *args: Any, **kwargs: Any) -> Any:
        reads = isinstance(mode, str) and "r" in mode
        made = filled(file, sys._getframe(1)) if reads else None
        return opened(file if made is None else made, mode, *args, **kwargs)

    def os_open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        made = filled(path, sys._getframe(1)) if not flags & os.O_ACCMODE else None
        return descriptor(path, flags, mode, dir_fd=dir_fd) if made is None else made

    open_.__name__ = open_.__qualname__ = "open"  # so that pickle finds it
    open_.__module__ = "io"
    os_open.__name__ = os_open.__qualname__ = "open"
    os_open.__module__ = "os"
    for owner in (builtins, io):
        replacements.attribute(owner, "open", open_)
    replacements.attribute(os, "open", os_open)
    os.supports_dir_fd.add(os_open)
    replacements.callback(os.supports_dir_fd.discard, os_open)
    accessor = getattr(pathlib, "_NormalAccessor", None)  # Python 3.10 looks it up there
    if accessor is not None:
        replacements.attribute(accessor, "open", staticmethod(open_))


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
