"""What to say where the machine has no room for the audit's own files, or has lost them."""

from __future__ import annotations

import errno
import json
import resource
import shutil
from pathlib import Path

from repro_audit.errors import UsageError

_NEXT = {
    errno.ENOSPC: "set TMPDIR to a place with more room",
    errno.EDQUOT: "set TMPDIR to a place with more room",
    errno.EFBIG: "raise the limit on the size of files: ulimit -f unlimited",
    errno.EMFILE: "raise the limit on open files: ulimit -n 4096",
    errno.ENFILE: "end other programs, since the machine has no more files to open",
}
FULL_BYTES = 1 << 20
"""A place with less room than this counts as full."""


def no_room(error: BaseException, place: Path) -> UsageError | None:
    """The error in place of `error`, where that is the machine's: a limit, a full disk, a `place` that is gone."""
    if not isinstance(error, OSError):
        return None
    if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ESTALE} and not place.is_dir():
        return gone(place)
    if error.errno in _NEXT:
        return _full(error.errno, str(error), place)
    return None


def check(place: Path) -> None:
    """Say so where `place` is gone or full, after something that did not end well in it.

    Raises:
        UsageError: it is.
    """
    if not place.is_dir():
        raise gone(place)
    if shutil.disk_usage(place).free < FULL_BYTES:
        raise _full(errno.ENOSPC, "the file system is full", place)


def gone(place: Path) -> UsageError:
    """What to say of a directory that is not there any more."""
    return UsageError(
        "the audit's own files are gone",
        where=str(place),
        why="something deleted them while the audit ran, such as a cleaner of temporary files",
        next_step="run the audit again, or set TMPDIR to a place that is left alone",
    )


def _full(number: int, why: str, place: Path) -> UsageError:
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if number == errno.EFBIG and limit != resource.RLIM_INFINITY:
        why = f"{why}; files may have {limit} bytes at most"
    return UsageError(
        "the audit's own files can not be written",
        where=str(place),
        why=why,
        next_step=_NEXT[number],
    )


def to_json(error: UsageError) -> str:
    """One line that `from_json` reads."""
    return json.dumps([error.what, error.where, error.why, error.next_step])


def from_json(line: str) -> UsageError | None:
    """What `to_json` wrote; None where the line is none of those."""
    try:
        what, where, why, next_step = json.loads(line)
    except ValueError:
        return None
    return UsageError(what, where=where, why=why, next_step=next_step)
