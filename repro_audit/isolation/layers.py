"""Layers below an overlay in a user namespace, for what overlayfs can not do there by itself.

There it takes up no file of another user or group than the one that exists in the namespace, and no directory with
mounts below it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from repro_audit.isolation import copying
from repro_audit.isolation.copying import (
    Size,
    copy_file,
    copy_tree,
    measure,
    mode_as_owner,
    take_after,
    walk,
)


@dataclass(slots=True)
class _Room:
    """What may still be copied."""

    files: int
    bytes: int

    def takes(self, size: Size) -> bool:
        """Whether there is room for that much, which is then less by it."""
        if size.files > self.files or size.bytes > self.bytes:
            return False
        self.files -= size.files
        self.bytes -= size.bytes
        return True


def adopt(root: Path, mounts: Sequence[Path], layer: Path) -> bool:
    """Copy into `layer` what this user may write below `root` though it has another owner or group.

    overlayfs fails with EOVERFLOW to take such files up from the tree; from a layer of this user's own it can.

    Returns:
        Whether everything was: of files only as much as is copied at most, and the search ends there too.
    """
    own = (os.geteuid(), os.getegid())
    room = _Room(copying.FILES_LIMIT, copying.BYTES_LIMIT)
    is_complete = True
    for seen, (path, status) in enumerate(walk(root, mounts)):
        if seen == copying.FILES_LIMIT:
            return False
        is_own = (status.st_uid, status.st_gid) == own
        if is_own or path in mounts or not os.access(path, os.W_OK, follow_symlinks=False):
            continue
        copy = layer / path.relative_to(root)
        with suppress(FileNotFoundError):
            if stat.S_ISDIR(status.st_mode):
                _adopt_directories(root, layer, copy)
            elif stat.S_ISREG(status.st_mode) and room.takes(Size(files=1, bytes=status.st_size)):
                _adopt_directories(root, layer, copy.parent)
                copy_file(path, copy, root, root)
            elif stat.S_ISREG(status.st_mode):
                is_complete = False
    return is_complete


def _adopt_directories(root: Path, layer: Path, copy: Path) -> None:
    """Make the directory `copy` in `layer`, and those above it, like their originals."""
    for directory in reversed((copy, *copy.parents)):
        if directory.is_relative_to(layer) and not directory.exists():
            directory.mkdir()
            original = root / directory.relative_to(layer)
            directory.chmod(mode_as_owner(original) | stat.S_IWUSR)


def build_around(root: Path, mounts: Sequence[Path], layer: Path) -> list[Path] | None:
    """Build in `layer` a tree like `root` around its `mounts`, to stand below an overlay in its place.

    It has the directories above each mount, and in them copies of what is small, places for the mounts, and places
    for directories that are too large to copy: each of those is to have an overlay of its own.

    Returns:
        These directories, or None where a file is too large to copy.
    """
    above = {path for mount in mounts for path in mount.parents if path.is_relative_to(root)}
    room = _Room(copying.FILES_LIMIT, copying.BYTES_LIMIT)
    large: list[Path] = []
    for path in _beside(above, mounts):
        copy = layer / path.relative_to(root)
        if path in above or path in mounts:
            _make_place(path, copy)
            continue
        with suppress(PermissionError, FileNotFoundError):
            status = path.lstat()
            if not stat.S_ISDIR(status.st_mode):
                if not room.takes(Size(files=1, bytes=status.st_size)):
                    return None
                copy_file(path, copy, root, root)
            elif room.takes(measure(path)):
                copy_tree(path, copy, seen_at=path)
            else:
                copy.mkdir()
                large.append(path)
    for directory in sorted(above - {root}, reverse=True):
        take_after(directory, layer / directory.relative_to(root), owner=False)
    return large


def _beside(above: set[Path], mounts: Sequence[Path]) -> Iterator[Path]:
    """What is in each of the directories `above` mounts, at least these; parents first."""
    known = above.union(mounts)
    for directory in sorted(above):
        entries = {path for path in known if path.parent == directory}
        with suppress(OSError):
            entries.update(directory.iterdir())
        yield from sorted(entries - {directory})


def _make_place(path: Path, copy: Path) -> None:
    """Make what `path` can be mounted on, or copied into."""
    try:
        is_directory = stat.S_ISDIR(path.lstat().st_mode)
    except OSError:  # a mount of another user's
        is_directory = True
    if is_directory:
        copy.mkdir()
    else:
        copy.touch()
