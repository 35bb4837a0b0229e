"""What a program can ask of the machine that it runs on, and the answers of another one: levels of `environment`.

Each is watched in every trial, and tried only where the program was seen to ask.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

from repro_audit.context import TrialContext
from repro_audit.replacements import Replacements
from repro_audit.sources._program import Lines, read_lines
from repro_audit.sources.emulation import names
from repro_audit.sources.emulation.callers import asker, noting
from repro_audit.sources.emulation.stat import (
    STAT,
    TIMES,
    Face,
    Times,
    altered,
    began,
    note_by_kind,
    replace_with_support,
)

START = "start directory"
TEMPORARY = "temporary directory"
REVERSED_TIMES, SORTED_TIMES = "file times, reversed", "file times, by name"
INODES, CPUS, MEMORY, DISK = "inode numbers", "CPU count", "memory", "disk"

ASKS = {
    START: "asks for the working directory",
    TEMPORARY: "asks for the directory of temporary files",
    REVERSED_TIMES: "asks for the times of a file",
    SORTED_TIMES: "asks for the times of a file",
    INODES: "asks for the inode number of a file",
    CPUS: "asks for the number of CPUs",
    MEMORY: "asks for the size of the memory",
    DISK: "asks for the size of the disk",
}
"""Levels that are tried only where a line of the program asks for what they change; what such a line does."""
_LOGS = {SORTED_TIMES: REVERSED_TIMES}
"""Levels that another one's lines are enough for."""

SECOND, YEAR = 10**9, 365 * 86_400 * 10**9
_PATH = (str, bytes, os.PathLike)
_LISTDIR = os.listdir
APART = 1000
"""Nanoseconds between files of one moment: as little as a float tells apart."""
_PATHS = ("posixpath", "pathlib")
_POOLS = ("multiprocessing.context", "multiprocessing.pool", "concurrent")


def _log(level: str) -> str:
    return f"environment-{_LOGS.get(level, level).replace(' ', '-').replace(',', '')}.jsonl"


def asked(trial: TrialContext) -> dict[str, list[tuple[str, int]]]:
    """The lines that asked, by the level that changes what they are told."""
    return {level: read_lines(trial.directory / _log(level)) for level in ASKS}


@contextmanager
def watched(level: str, trial: TrialContext) -> Iterator[None]:
    """Note who asks, and answer as the level says."""
    with Replacements() as replacements:
        lines = {name: Lines(trial.directory / _log(name)) for name in ASKS}
        for name in (
            "getcwd",
            "getcwdb",
        ):  # `os.path.relpath`, `abspath`, `Path.cwd` and `absolute` too
            new = noting(getattr(os, name), lines[START], _PATHS)
            replacements.function(os, name, new)
        _watch_temporary(lines[TEMPORARY], replacements)
        _show_cpus(lines[CPUS], replacements, trial, other=level == CPUS)
        _show_memory(lines[MEMORY], replacements, trial, other=level == MEMORY)
        _show_disk(lines[DISK], replacements, trial, other=level == DISK)
        files = _Files(level, trial)
        noticed = note_by_kind(lines[REVERSED_TIMES], lines[INODES])
        Face(change=files.change, noticed=noticed).show(replacements)
        yield


def _watch_temporary(lines: Lines, replacements: Replacements) -> None:
    """`tempfile.gettempdir`, and with it all that `tempfile` makes; `TMPDIR` in the environment."""
    directory = tempfile._gettempdir  # type: ignore[attr-defined]
    replacements.function(tempfile, "_gettempdir", noting(directory, lines, ("tempfile",)))
    item = os._Environ.__getitem__

    def getitem(environ: Any, key: Any) -> Any:
        if key in ("TMPDIR", b"TMPDIR"):
            users = asker(sys._getframe(1), ("os", "_collections_abc"))
            if users is not None:
                lines.note(users)
        return item(environ, key)

    replacements.attribute(os._Environ, "__getitem__", getitem)


def other_count(count: int) -> int:
    """As many CPUs as another machine may have: on either side of what programs limit themselves to."""
    return 4 if count <= 2 else 2  # noqa: PLR2004 - of two


def _show_cpus(
    lines: Lines, replacements: Replacements, trial: TrialContext, *, other: bool
) -> None:
    def show(owner: Any, name: str) -> None:
        original = vars(owner).get(name)
        if original is not None:
            new = noting(original, lines, _POOLS, _of_another if other else None)
            replacements.function(owner, name, new)

    for name in ("cpu_count", "process_cpu_count", "sched_getaffinity"):
        show(os, name)
    trial.when_imported("psutil", lambda: show(sys.modules["psutil"], "cpu_count"))


def _of_another(answer: int | set[int] | None) -> int | set[int] | None:
    """The number of CPUs, or the CPUs, of another machine."""
    if isinstance(answer, set):
        return set(range(other_count(len(answer))))
    return other_count(answer) if answer is not None else None


def _show_memory(
    lines: Lines, replacements: Replacements, trial: TrialContext, *, other: bool
) -> None:
    """The size of the memory, and as what is free of it a share that is always the same."""
    share = 8 if other else 4
    sysconf = os.sysconf

    def shown(name: Any) -> int:
        if name not in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"):
            return sysconf(name)
        users = asker(sys._getframe(1))
        if users is None:
            return sysconf(name)
        lines.note(users)
        total = sysconf("SC_PHYS_PAGES")
        if name == "SC_AVPHYS_PAGES":
            return total // share
        return total // 2 if other else total

    replacements.attribute(os, "sysconf", shown)

    def memory(found: Any) -> Any:
        free = found.total // share
        total = found.total // 2 if other else found.total
        percent = round(100 * (total - free) / total, 1)
        return found._replace(
            total=total, available=free, free=free, used=total - free, percent=percent
        )

    def show_psutil() -> None:
        psutil = sys.modules["psutil"]
        new = noting(psutil.virtual_memory, lines, shown=memory)
        replacements.function(psutil, "virtual_memory", new)

    trial.when_imported("psutil", show_psutil)


def _show_disk(
    lines: Lines, replacements: Replacements, trial: TrialContext, *, other: bool
) -> None:
    """The size of the disk, and of what is free of it; how that changes from run to run is another source's."""

    def show(owner: Any, name: str, halved: Callable[[Any], Any]) -> None:
        new = noting(getattr(owner, name), lines, shown=halved if other else None)
        replace_with_support(owner, name, new, replacements)

    show(os, "statvfs", _half_of_blocks)
    show(os, "fstatvfs", _half_of_blocks)
    for module in ("shutil", "psutil"):
        trial.when_imported(
            module, partial(lambda name: show(sys.modules[name], "disk_usage", _half), module)
        )


def _half(found: Any) -> Any:
    """What `disk_usage` says of a disk of half the size."""
    total, free = found.total // 2, found.free // 2
    return found._replace(total=total, used=total - free, free=free)


def _half_of_blocks(found: os.statvfs_result) -> os.statvfs_result:
    """What `os.statvfs` says of a disk of half the size."""
    values, _names = cast("Any", found.__reduce__())[1]
    return os.statvfs_result(
        (*values[:2], *(value // 2 for value in values[2:8]), *values[8:]), _names
    )


class _Files:
    """The times and numbers of files that the run has not written, as another machine has them."""

    def __init__(self, level: str, trial: TrialContext) -> None:
        self._level = level
        self._began = began(trial)
        self._year_ago = trial.instant * SECOND - YEAR
        self._times = {name: Times(start=0, distance=SECOND) for name in TIMES}
        self._ties: dict[str, dict[str, int]] = {}

    def change(self, real: os.stat_result, seen: os.stat_result, path: Any) -> os.stat_result:
        """The state that the program sees."""
        if self._level in (REVERSED_TIMES, SORTED_TIMES):
            name = Path(os.fsdecode(path)).name if isinstance(path, _PATH) else ""
            return altered(seen, **self._stamps(real, name))
        if self._level == names.USER and real.st_uid == names.REAL_UID:
            seen = altered(seen, uid=names.other_uid())
        if self._level == INODES and real.st_ctime_ns < self._began:
            seen = altered(seen, ino=(1 << 40) - real.st_ino)
        if real.st_mtime_ns < self._began and isinstance(path, (str, os.PathLike)):
            place = self._place(os.path.split(os.fsdecode(path)))
            if place:
                return altered(seen, mtime=seen.st_mtime_ns + place * APART)
        return seen

    def _place(self, path: tuple[str, str]) -> int:
        """A file's place by its name among those of its directory that have the same time, counted from zero.

        A checkout or a copy writes many files in one moment. Which of them is the newest must hang on the times, which
        the levels change, and not on the order in which the program comes to them, which is another source's.
        """
        directory, name = path
        places = self._ties.get(directory)
        if places is None:
            places = self._ties[directory] = {}
            found: dict[int, int] = {}
            with suppress(OSError):
                for other in sorted(_LISTDIR(directory or ".")):
                    with suppress(OSError):
                        stamp = STAT(os.path.join(directory, other)).st_mtime_ns  # noqa: PTH118 - many
                        places[other] = found[stamp] = found.get(stamp, -1) + 1
        return places.get(name, 0)

    def _stamps(self, real: os.stat_result, name: str) -> dict[str, int]:
        found = {}
        for each, times in self._times.items():
            stamp: int = getattr(real, f"st_{each}_ns")
            if stamp >= self._began:
                continue
            # Files of one moment are told apart by their names, in either order.
            if self._level == SORTED_TIMES:
                found[each] = self._year_ago + times.shown((name, real.st_ino))
            else:
                found[each] = self._year_ago - times.shown((stamp, name, real.st_ino))
        return found
