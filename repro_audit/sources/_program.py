"""What sources that replace functions share: whose line is calling, and a log of such lines."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from repro_audit import notebook
from repro_audit.context import TrialContext
from repro_audit.probe.files import is_users
from repro_audit.storage.border import append, entries
from repro_audit.storage.facts import Json

_IMPORTING = ("<frozen importlib", str(Path(importlib.__file__).parent))

LINES_SHOWN = 8
"""More lines of evidence than this would hide the rest of a report."""


def direct_caller(frame: FrameType | None) -> FrameType | None:
    """The frame of the program's own code that makes a call, seen from the function called; None for a library's.

    Generated code, such as the `__init__` of a dataclass, counts as its caller's.
    """
    while frame is not None and is_generated(frame.f_code.co_filename):
        frame = frame.f_back
    return frame if frame is not None and is_users(frame.f_code.co_filename) else None


def behind(frame: FrameType | None) -> tuple[FrameType | None, bool]:
    """The innermost frame of the program's own code, on whose behalf a library works; None without one.

    And whether an import is under way in between: what that does is no doing of the line that imports.
    """
    importing = False
    while frame is not None and not is_users(frame.f_code.co_filename):
        importing = importing or frame.f_code.co_filename.startswith(_IMPORTING)
        frame = frame.f_back
    return frame, importing


def is_generated(filename: str) -> bool:
    """Whether code was made while the program ran, such as the `__init__` of a dataclass."""
    return filename.startswith("<") and not filename.startswith("<frozen ")


class Lines:
    """Lines of the program's code that did something, logged by the processes of a trial to one file."""

    def __init__(self, log: Path) -> None:
        self._log = str(log.resolve())
        self._cwd = Path.cwd()
        self._seen: set[tuple[str, int]] = set()

    def note(self, frame: FrameType | None) -> None:
        """Log the line that runs in a frame, once a process; no frame stands for a library's own doing."""
        key = ("", 0) if frame is None else (frame.f_code.co_filename, frame.f_lineno)
        if key in self._seen:
            return
        self._seen.add(key)
        file, line = key
        with suppress(ValueError):
            file = str(Path(file).relative_to(self._cwd)) if file else file
        with suppress(OSError):
            append(self._log, [file, line])


def read_lines(log: Path) -> list[tuple[str, int]]:
    """File and line of each entry that a trial's processes logged, sorted, each once; torn ones are left out."""
    return sorted({(str(file), int(line)) for file, line in entries(log, list)})


def logged(name: str) -> Callable[[TrialContext], Json]:
    """The survey of a source that logs lines to a file of this name; an empty one stands for a library's own doing."""
    return lambda trial: read_lines(trial.directory / name)


def noted(found: Json) -> tuple[tuple[str, int], ...]:
    """The lines of the program among those that were logged."""
    return tuple((file, line) for file, line in found or () if file)


def evidence(lines: Iterable[Iterable[Any]], verb: str) -> tuple[str, ...]:
    """A sentence for each line of the program that was logged."""
    places = [notebook.place(file, line) for file, line in lines if file]
    more = len(places) - LINES_SHOWN
    shown = [f"{place} {verb}" for place in places[:LINES_SHOWN]]
    return (*shown, f"and {more} more lines") if more > 0 else tuple(shown)
