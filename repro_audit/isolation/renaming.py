"""Renames of directories that an overlay refuses, done as a copy.

overlayfs answers `EXDEV` where a directory that was there before is renamed, as if it crossed file systems (the
kernel's Documentation/filesystems/overlayfs.rst, "renaming directories"). Programs that keep `last` and `previous`
checkpoints do that on any other file system, and need not handle it.
"""

from __future__ import annotations

import errno
import functools
import os
import pathlib
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

Rename = Callable[..., None]


def allow_directory_renames() -> None:
    """Let `os.rename`, `os.replace`, and what is built on them, rename any directory of the overlay."""
    os.rename = _tolerant(os.rename)
    os.replace = _tolerant(os.replace)
    if sys.version_info < (3, 11):  # there pathlib keeps the functions that it found at its import
        accessor = vars(pathlib)["_normal_accessor"]
        accessor.rename, accessor.replace = os.rename, os.replace


def _tolerant(original: Rename) -> Rename:
    """`original`, with the copy where the overlay refuses."""

    @functools.wraps(original)
    def rename(src: Any, dst: Any, **descriptors: Any) -> None:
        try:
            original(src, dst, **descriptors)
        except OSError as error:
            if error.errno != errno.EXDEV or descriptors or not _is_refusal(src, dst):
                raise
            _move(original, Path(os.fsdecode(src)), Path(os.fsdecode(dst)))

    return rename


def _is_refusal(src: Any, dst: Any) -> bool:
    """Whether `src` is a directory of the same file system as `dst`, so that any other one would have renamed it.

    Directories of an overlay have its device number, whichever layer they are in.
    """
    status = os.lstat(src)
    beside = Path(os.fsdecode(dst)).parent.stat()
    return stat.S_ISDIR(status.st_mode) and status.st_dev == beside.st_dev


def _move(original: Rename, src: Path, dst: Path) -> None:
    """Copy beside `dst`, rename the copy, which is new and so can be, and remove `src`."""
    place = Path(tempfile.mkdtemp(prefix=".repro-audit-", dir=dst.parent))
    try:
        shutil.copytree(src, place / "copy", symlinks=True)
        original(place / "copy", dst)
        shutil.rmtree(src)
    finally:
        shutil.rmtree(place)
