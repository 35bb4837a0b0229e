"""What a trial changed in its tree, from the layer that took its writes or from its copy."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from repro_audit.isolation.copying import relinked
from repro_audit.isolation.tree import Part, Tree

Stack = tuple[Path, ...]
"""Directories that are shown as one, topmost first."""

Entry = Path | Stack | None
"""What a name stands for in a stack: a file or link, a stack again, or nothing."""

OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
"""Attributes of a directory that hides those below it; see the kernel's Documentation/filesystems/overlayfs.rst."""

CHUNK = 1 << 20


def written(tree: Tree) -> tuple[str, ...]:
    """Paths relative to the root of what the trial created, changed or deleted, sorted.

    Files and links, and directories that are, or were, empty or are barred now. What has the same bytes as before is
    left out, so are Python's own caches (`__pycache__`). To be called outside the trial, since inside it the tree is
    the changed one. A shared tree has nothing to compare with: the answer is empty and says nothing.
    """
    is_copy = tree.kind == "copy"
    found: list[Path] = []
    for part in tree.parts:
        after = (part.upper,) if is_copy else (part.upper, *part.lowers)
        found += _changes(after, part.lowers, part.place, part if is_copy else None)
    return tuple(sorted(str(path) for path in found if "__pycache__" not in path.parts))


def _changes(after: Stack, before: Stack, place: Path, copy: Part | None) -> Iterator[Path]:
    """Differences between two stacks of directories at `place`; of `copy`, where it is one."""
    # An upper directory over the same stack hides nothing: what it does not name is as before.
    is_upper = after[1:] == before
    if is_upper and not os.access(after[0], os.R_OK | os.X_OK):
        yield place
        return
    for name in _names(after[:1] if is_upper else after + before):
        new, old = _look_up(after, name), _look_up(before, name)
        path = place / name
        if isinstance(new, tuple) and isinstance(old, tuple):
            yield from _changes(new, old, path, copy)
        elif isinstance(new, Path) and isinstance(old, Path):
            if new != old and not _is_same(new, old, copy):
                yield path
        elif not (isinstance(new, Path) and isinstance(old, tuple) and _leads_to(new, old[0])):
            yield from {*_leaves(new, path), *_leaves(old, path)}


def _leaves(entry: Entry, path: Path) -> Iterator[Path]:
    """The files and empty directories of `entry`, as paths below `path`."""
    if isinstance(entry, tuple) and (names := _names(entry)):
        inside = [(name, _look_up(entry, name)) for name in names]
        if all(each is None for _, each in inside):
            yield path
        for name, each in inside:
            yield from _leaves(each, path / name)
    elif entry is not None:
        yield path


def _look_up(stack: Stack, name: str) -> Entry:
    """What `name` stands for in the merged directories of `stack`, as overlayfs has it."""
    directories: list[Path] = []
    for layer in stack:
        path = layer / name
        try:
            status = path.lstat()
        except OSError:
            continue
        if stat.S_ISDIR(status.st_mode):
            directories.append(path)
            if _is_opaque(path):
                break
        elif directories:
            break
        else:
            is_whiteout = stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
            return None if is_whiteout else path
    return tuple(directories) or None


def _names(stack: Stack) -> list[str]:
    """Every name in the directories of `stack`, whiteouts included."""
    names: set[str] = set()
    for layer in stack:
        with suppress(OSError):  # one that the program barred shows as empty
            names.update(path.name for path in layer.iterdir())
    return sorted(names)


def _is_opaque(directory: Path) -> bool:
    """Whether `directory` hides what layers below have at its place."""
    for attribute in OPAQUE:
        with suppress(OSError):
            if os.getxattr(directory, attribute) == b"y":
                return True
    return False


def _leads_to(link: Path, mount: Path) -> bool:
    """Whether `link` stands in a copy for a mount inside the tree, which is not copied."""
    return link.is_symlink() and link.readlink() == mount


def _is_same(new: Path, old: Path, copy: Part | None) -> bool:
    """Whether two files or links are alike; in a copy, size and time speak for the content."""
    now, then = new.lstat(), old.lstat()
    if stat.S_IFMT(now.st_mode) != stat.S_IFMT(then.st_mode):
        return False
    if stat.S_ISLNK(now.st_mode):
        link = relinked(old, copy.lowers[0], copy.upper) if copy else str(old.readlink())
        return str(new.readlink()) == link
    if stat.S_ISREG(now.st_mode) and now.st_size == then.st_size:
        if copy and now.st_mtime_ns == then.st_mtime_ns:
            return True
        return _has_same_bytes(new, old)
    return not stat.S_ISREG(now.st_mode)


def _has_same_bytes(new: Path, old: Path) -> bool:
    """Whether the content of two files of the same size is equal, as far as it can be read."""
    try:
        with new.open("rb") as one, old.open("rb") as other:
            while chunk := one.read(CHUNK):
                if chunk != other.read(CHUNK):
                    return False
    except OSError:  # barred by the program
        return False
    return True
