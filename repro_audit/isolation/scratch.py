"""The directory that an audit has for itself: made, deleted, and swept after an audit that was killed."""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from repro_audit.isolation.copying import delete

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "repro-audit-"
LOCK = "lock"
UNLOCKED_SECONDS = 60
"""An audit locks its directory much sooner than this."""

_made: set[Path] = set()
"""Directories of this process that are not deleted yet."""


def make_scratch(parent: Path, name: str = "") -> tuple[Path, int]:
    """A new directory in `parent`, and the descriptor of the locked file in it that says that its audit lives.

    It has the name that is given, unless there is one of that name.
    """
    scratch = parent / f"{PREFIX}{name}"
    if not name or os.path.lexists(scratch):
        scratch = parent / f"{PREFIX}{secrets.token_hex(4)}"
    scratch.mkdir(mode=0o700)
    _made.add(scratch)
    lock = os.open(scratch / f"{LOCK}.new", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    (scratch / f"{LOCK}.new").rename(scratch / LOCK)  # never seen unlocked while the audit lives
    return scratch, lock


def share_scratch(scratch: Path) -> int:
    """Make a directory that several processes have; the descriptor by which it is not swept while one of them lives."""
    while True:
        scratch.mkdir(mode=0o700, exist_ok=True)
        with suppress(FileNotFoundError):  # it was swept before it was locked
            flags = os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
            lock = os.open(scratch / LOCK, flags, 0o600)
            fcntl.flock(lock, fcntl.LOCK_SH)
            if os.fstat(lock).st_nlink:
                return lock
            os.close(lock)


def delete_scratch(scratch: Path) -> None:
    """Delete a directory that `make_scratch` made, its lock last, so that it can be swept if this is cut short."""
    scratch.chmod(0o700)
    with os.scandir(scratch) as entries:
        inside = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    for directory in inside:
        delete(directory)
    delete(scratch)
    _made.discard(scratch)


def delete_all() -> None:
    """Delete every directory of this process that is still there, for a process that is to end."""
    for scratch in list(_made):
        with suppress(OSError):
            delete_scratch(scratch)


def sweep(parent: Path) -> None:
    """Delete what audits killed by SIGKILL left in `parent`."""
    for scratch in _leftovers(parent):
        with suppress(OSError):
            try:
                lock = os.open(scratch / LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                _sweep_unlocked(scratch)
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                delete_scratch(scratch)
            finally:
                os.close(lock)


def _sweep_unlocked(scratch: Path) -> None:
    """Delete the directory of an audit that was killed before it had locked it, where nothing else is in there."""
    if time.time() - scratch.stat().st_mtime > UNLOCKED_SECONDS:
        (scratch / f"{LOCK}.new").unlink(missing_ok=True)
        scratch.rmdir()


def _leftovers(parent: Path) -> Iterator[Path]:
    """Directories of this user in `parent` that look like an audit's, dead or alive."""
    with os.scandir(parent) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False):
                with suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_uid == os.geteuid():
                        yield Path(entry.path)
