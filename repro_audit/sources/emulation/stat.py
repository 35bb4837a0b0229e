"""What the program is told of its files' times and numbers: in place of `os.stat` and what is made of it.

Two sources have a say. The times and the inode number of a file that the run itself wrote are its own, and pinned;
those of all other files are the machine's.
"""

from __future__ import annotations

import os
import pathlib
import sys
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import Any, cast

from repro_audit.context import TrialContext
from repro_audit.replacements import Replacements
from repro_audit.sources._program import Lines, is_generated
from repro_audit.sources.emulation.callers import asker, asks, standard_module

STAT, LSTAT, FSTAT, ENTRY = os.stat, os.lstat, os.fstat, os.DirEntry.stat
"""The originals, whatever stands in for them."""

TIMES = ("atime", "mtime", "ctime")
_NUMBERS = {"ino": 1, "uid": 4}
"""Fields of a state by their place."""
_ASKING = {
    "genericpath": ("getmtime", "getatime", "getctime"),
    "pathlib": ("stat", "lstat"),
    "zipfile": ("from_file",),
    "tarfile": ("gettarinfo",),
}
"""Functions of the standard library that hand on what they are told. Others look whether there is a file."""
_THROUGH = tuple(_ASKING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A question for what a file is, and who asks."""

    users: FrameType
    """The program's own frame."""
    times: bool
    number: bool


def began(trial: TrialContext) -> int:
    """Nanoseconds since 1970 when the trial began, by the clock that stamps files; the same in all its processes."""
    try:
        return STAT(trial.directory / "request.json").st_mtime_ns
    except OSError:
        stamp = trial.directory / "began"
        stamp.touch()
        return STAT(stamp).st_mtime_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """What the program sees of the state of files."""

    change: Callable[[os.stat_result, os.stat_result, Any], os.stat_result]
    """Given a file's real state, the one that the program would see, and its path, the one that it does see."""
    noticed: Callable[[Reading], None]
    """Told of each reading that may look at times or at the number."""
    renamed: Callable[[Any], Any] = lambda path: path
    """A path's real name."""

    def show(self, replacements: Replacements) -> None:
        """Stand in for all functions that give a state."""
        accessor = getattr(pathlib, "_NormalAccessor", None)  # Python 3.10 looks them up there
        for owner in filter(None, (os, accessor)):
            for name, made in (("stat", self._stat), ("lstat", self._lstat)):
                held = vars(owner).get(name)
                if held is not None:
                    replace_with_support(
                        owner, name, made(getattr(held, "__func__", held)), replacements
                    )
        replacements.attribute(os, "fstat", self._fstat(os.fstat))
        self._show_entries(replacements)

    def _show_entries(self, replacements: Replacements) -> None:
        stat, inode = os.DirEntry.stat, os.DirEntry.inode

        def shown_stat(entry: Any, *, follow_symlinks: bool = True) -> Any:
            seen = stat(entry, follow_symlinks=follow_symlinks)
            real = partial(ENTRY, entry, follow_symlinks=follow_symlinks)
            return self._answer(seen, real, entry.path, sys._getframe(1))

        def shown_inode(entry: Any) -> int:
            users = asker(sys._getframe(1))
            if users is None:
                return int(inode(entry))
            self.noticed(Reading(users=users, times=False, number=True))
            real = ENTRY(entry, follow_symlinks=False)
            return self.change(real, stat(entry, follow_symlinks=False), entry.path).st_ino

        replacements.method(os.DirEntry, "stat", shown_stat)
        replacements.method(os.DirEntry, "inode", shown_inode)

    def _stat(self, original: Any) -> Any:
        def stat(path: Any, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> Any:
            path = self.renamed(path)
            given: dict[str, Any] = {"dir_fd": dir_fd, "follow_symlinks": follow_symlinks}
            seen = original(path, **given)
            return self._answer(seen, partial(STAT, path, **given), path, sys._getframe(1))

        return stat

    def _lstat(self, original: Any) -> Any:
        def lstat(path: Any, *, dir_fd: int | None = None) -> Any:
            path = self.renamed(path)
            seen = original(path, dir_fd=dir_fd)
            return self._answer(seen, partial(LSTAT, path, dir_fd=dir_fd), path, sys._getframe(1))

        return lstat

    def _fstat(self, original: Any) -> Any:
        def fstat(fd: int) -> Any:
            return self._answer(original(fd), partial(FSTAT, fd), fd, sys._getframe(1))

        return fstat

    def _answer(
        self, seen: Any, real: Callable[[], Any], path: Any, frame: FrameType | None
    ) -> Any:
        reading = read_by(frame)
        if reading is None:
            return seen
        if reading.times or reading.number:
            self.noticed(reading)
        return self.change(real(), seen, path)


def read_by(frame: FrameType | None) -> Reading | None:
    """Who asks for the state of a file, and for which part of it; None for one to whom the truth does no harm."""
    while frame is not None and is_generated(frame.f_code.co_filename):
        frame = frame.f_back
    frame = asks(frame)
    if frame is None:
        return None
    code = frame.f_code
    module = standard_module(code.co_filename)
    users = asker(frame, _THROUGH) if _may_hand_on(frame, module) else None
    if users is None:
        return None
    if module == "genericpath":
        return Reading(users=users, times=True, number=False)
    asking = asks(frame, _THROUGH) or users
    names = {name for name in asking.f_code.co_names if name.startswith("st_")}
    stamps = {name for name in names if name[3:8] in TIMES}
    return Reading(
        users=users,
        times=bool(stamps) or not names,
        number="st_ino" in names or not names,
    )


def _may_hand_on(frame: FrameType | None, module: str) -> bool:
    """Whether a function of the standard library asks for more than whether there is a file."""
    if module not in _ASKING:
        return True
    if module != "pathlib":
        return frame is not None and frame.f_code.co_name in _ASKING[module]
    while frame is not None and standard_module(frame.f_code.co_filename) == module:
        if frame.f_code.co_name not in _ASKING[module]:
            return False  # `exists` asks `stat`
        frame = frame.f_back
    return True


def replace_with_support(owner: Any, name: str, new: Any, replacements: Replacements) -> None:
    """Replace a function of `os`, also where that tells which arguments it supports."""
    old = vars(owner)[name]
    if isinstance(owner, type):
        replacements.attribute(owner, name, staticmethod(new))
    else:
        replacements.function(owner, name, new)
    for group in (os.supports_fd, os.supports_dir_fd, os.supports_follow_symlinks):
        if old in group:  # `shutil` looks there
            group.add(new)
            replacements.callback(group.discard, new)


def altered(seen: os.stat_result, **fields: int) -> os.stat_result:
    """A state with other times, in nanoseconds, or other numbers: `mtime=...`, `ino=...`, `uid=...`."""
    visible, more = cast("Any", seen.__reduce__())[1]
    values = list(visible)
    named = dict(more)
    for name, value in fields.items():
        if name in _NUMBERS:
            values[_NUMBERS[name]] = value
            continue
        values[7 + TIMES.index(name)] = value // 10**9
        named[f"st_{name}"] = value / 10**9
        named[f"st_{name}_ns"] = value
    return os.stat_result(values, named)


@dataclass(slots=True, kw_only=True)
class Times:
    """Times at an even distance in place of real ones, in their order; later ones may have come in between."""

    start: int
    distance: int
    _real: list[tuple[Any, ...]] = field(default_factory=list)
    _shown: list[int] = field(default_factory=list)

    def shown(self, real: tuple[Any, ...]) -> int:
        """The time in place of a real one."""
        at = bisect_left(self._real, real)
        if at == len(self._real) or self._real[at] != real:
            below = self._shown[at - 1] if at else self.start
            above = self._shown[at] if at < len(self._shown) else below + 2 * self.distance
            self._real.insert(at, real)
            self._shown.insert(at, (below + above) // 2)
        return self._shown[at]


@dataclass(slots=True, kw_only=True)
class OwnFiles:
    """What the program sees of the files that the run itself wrote: their times in their order, at an even distance.

    How long the run took from one to the next is the machine's doing; which of two is the newer one, the program's.
    """

    began: int
    """Real nanoseconds since 1970; what is younger, the run wrote."""
    instant: int
    """What the program sees in place of it."""
    distance: int
    first: int
    """The number of the first of them; those of others follow."""
    step: int
    _times: dict[str, Times] = field(default_factory=dict)
    _numbers: dict[tuple[int, int], int] = field(default_factory=dict)

    def time(self, name: str, state: os.stat_result) -> int:
        """What a time is shown as, in nanoseconds; one that is older than the run as it is."""
        real: int = getattr(state, f"st_{name}_ns")
        if real < self.began:
            return real
        times = self._times.setdefault(name, Times(start=self.instant, distance=self.distance))
        # Files that were written in one tick of the clock are told apart: whether they were is chance.
        return times.shown((real, state.st_ino))

    def number(self, state: os.stat_result) -> int:
        """What an inode's number is shown as; one that was once the machine's stays so."""
        key = (state.st_dev, state.st_ino)
        if key not in self._numbers:
            count = len(self._numbers)
            is_own = state.st_ctime_ns >= self.began
            self._numbers[key] = self.first + self.step * count if is_own else state.st_ino
        return self._numbers[key]

    def change(self, real: os.stat_result, seen: os.stat_result, _path: Any) -> os.stat_result:
        """The state that the program sees."""
        shown = {name: self.time(name, real) for name in TIMES}
        return altered(seen, ino=self.number(real), **shown)


def note_by_kind(times: Lines, numbers: Lines) -> Callable[[Reading], None]:
    """Logs the lines that may look at times, and those that may look at numbers."""

    def noticed(reading: Reading) -> None:
        if reading.times:
            times.note(reading.users)
        if reading.number:
            numbers.note(reading.users)

    return noticed
