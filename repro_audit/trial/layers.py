"""Layers below an overlay in a user namespace, for what overlayfs can not do there by itself.

There it takes up no file of another user or group than the one that exists in the namespace, and no directory with
mounts below it.
"""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

from repro_audit.trial import copying
from repro_audit.trial.copying import copy_file, copy_tree, measure, mode_as_owner, take_after, walk

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def adopt(root: Path, mounts: Sequence[Path], layer: Path) -> bool:
    """Copy into `layer` what this user may write below `root` though it has another owner or group.

    overlayfs fails with EOVERFLOW to take such files up from the tree; from a layer of this user's own it can.

    Returns:
        Whether everything was: of files only as much as is copied at most, and the search ends there too.
    """
    own = (os.geteuid(), os.getegid())
    room = copying.BYTES_LIMIT
    seen = 0
    for path, status in islice(walk(root, mounts), copying.FILES_LIMIT + 1):
        seen += 1
        is_own = (status.st_uid, status.st_gid) == own
        if is_own or path in mounts or not os.access(path, os.W_OK, follow_symlinks=False):
            continue
        copy = layer / path.relative_to(root)
        if stat.S_ISDIR(status.st_mode):
            _adopt_directories(root, layer, copy)
        elif stat.S_ISREG(status.st_mode):
            room -= status.st_size
            if room >= 0:
                _adopt_directories(root, layer, copy.parent)
                with suppress(PermissionError):  # may be written, but not read
                    shutil.copy2(path, copy)
                    copy.chmod(mode_as_owner(path))
    return room >= 0 and seen <= copying.FILES_LIMIT


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
    spine = {
        directory
        for mount in mounts
        for directory in mount.parents
        if directory.is_relative_to(root)
    }
    files, room = copying.FILES_LIMIT, copying.BYTES_LIMIT
    large: list[Path] = []
    for directory in sorted(spine):
        for path in _entries(directory, spine.union(mounts)):
            copy = layer / path.relative_to(root)
            if path in spine or path in mounts:
                _make_place(path, copy)
                continue
            size = measure(path) if path.is_dir() and not path.is_symlink() else None
            needed = size.bytes if size else path.lstat().st_size
            if size and (size.files >= files or needed > room):
                _make_place(path, copy)
                large.append(path)
                continue
            files, room = files - 1 - (size.files if size else 0), room - needed
            if room < 0:
                return None
            if size:
                copy_tree(path, copy, seen_at=path)
            else:
                copy_file(path, copy, root, root)
    for directory in sorted(spine - {root}, reverse=True):
        take_after(directory, layer / directory.relative_to(root), owner=False)
    return large


def _entries(directory: Path, known: set[Path]) -> list[Path]:
    """What is in `directory`, at least of what is `known` to be there, since it may not be listable."""
    entries = {path for path in known if path.parent == directory}
    with suppress(OSError):
        entries.update(directory.iterdir())
    return sorted(entries - {directory})


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
