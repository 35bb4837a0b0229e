"""Runs rows one after the other, catches what each of them ends in, and prints them as a table.

Usage: python -m tests.gpu [PREFIX...]   only the rows whose names begin so

A row ends as `ok`, `wrong: …` (the product says what is not true) or `error: …` (it did not come to an end). No row
takes more than its time, and all together no more than `SECONDS`: what is left then is said to be left out. The exit
code is 0 where all rows are ok or there is no device, else 1.
"""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import time
import traceback
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tests.auditing import Audited, write_target
from tests.sharing import Interpreters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

SECONDS, SECONDS_OF_ROW = 450.0, 75.0
MOST_WORDS = 300
"""Characters of what is said of a row."""
OPTIONS = ("--jobs", "4", "--timeout", "60", "--no-pinpoint")


class WrongError(Exception):
    """The product says what is not true, or does not say what is."""


class _TimeUpError(BaseException):
    """Of a row; no handler of other errors may catch it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One thing to find out."""

    name: str
    run: Callable[[Place], str]
    """Returns what was found, in a few words, or raises `WrongError`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a row ended."""

    name: str
    result: str
    """`ok`, `wrong`, `error` or `left out`."""
    said: str
    seconds: float


class Place:
    """Where rows work: a directory, and interpreters that audits share until one of them fails."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._count = 0
        self._interpreters: Interpreters | None = None

    def new(self) -> Path:
        """An empty directory."""
        self._count += 1
        path = self._directory / f"row{self._count:03}"
        path.mkdir()
        return path

    def audit(self, source: str | Path, *options: str) -> Audited:
        """Audit the `build` of a program, given as its text or its file."""
        directory = self.new()
        if isinstance(source, Path):
            (directory / "tree").mkdir()
            shutil.copy(source, directory / "tree" / "train.py")
        else:
            write_target(directory, source)
        if self._interpreters is None:
            self._interpreters = Interpreters(self.new(), fresh=True)
            self._interpreters.__enter__()
        return self._interpreters.check(
            "train.py:build",
            *OPTIONS,
            *options,
            cwd=directory / "tree",
            saved=directory / "report.json",
        )

    def close(self) -> None:
        """End the interpreters; the next audit starts new ones."""
        if self._interpreters is not None:
            interpreters, self._interpreters = self._interpreters, None
            with suppress(Exception):
                interpreters.__exit__()


def main(prefixes: Sequence[str] = ()) -> int:
    """Run the rows and print them; without a device say so."""
    if not torch.cuda.is_available():
        print("no CUDA device: nothing of tests.gpu can run here")
        return 0
    from tests.gpu import checks, programs

    rows = [
        row
        for row in (*checks.ROWS, *programs.ROWS)
        if not prefixes or row.name.startswith(tuple(prefixes))
    ]
    print(heading(), flush=True)
    ended = run(rows)
    print("\n" + render(ended))
    return 0 if all(each.result == "ok" for each in ended) else 1


def heading() -> str:
    """The machine, in a line."""
    return (
        f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}, "
        f"torch {torch.__version__}, Python {sys.version.split()[0]}"
    )


def run(
    rows: Sequence[Row], *, seconds: float = SECONDS, seconds_of_row: float = SECONDS_OF_ROW
) -> list[Ended]:
    """How each row ended; each is printed as soon as it has."""
    until = time.monotonic() + seconds
    found = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        place = Place(Path(directory))
        for row in rows:
            found.append(_run(row, place, min(seconds_of_row, until - time.monotonic())))
            print(line(found[-1]), flush=True)
        place.close()
    return found


def _run(row: Row, place: Place, seconds: float) -> Ended:
    if seconds <= 0:
        return Ended(name=row.name, result="left out", said="no time was left", seconds=0.0)
    started = time.monotonic()
    result, said = "error", ""
    try:
        with _limited(seconds):
            result, said = "ok", row.run(place)
    except WrongError as error:
        result, said = "wrong", str(error)
    except _TimeUpError:
        said = f"did not end within {seconds:.0f} s"
    except (Exception, SystemExit) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
    if result == "error":  # who knows in what state it left them
        place.close()
    return Ended(name=row.name, result=result, said=said, seconds=time.monotonic() - started)


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    def stop(_number: int, _frame: FrameType | None) -> None:
        raise _TimeUpError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def line(ended: Ended) -> str:
    """A row of the table."""
    said = " ".join(ended.said.split()).replace("|", "/")
    if len(said) > MOST_WORDS:
        said = f"{said[:MOST_WORDS]}…"
    return f"| {ended.name} | {ended.result} | {said} | {ended.seconds:.1f} |"


def render(ended: Sequence[Ended]) -> str:
    """Markdown, so that it can be pasted as it is, and the sum."""
    results = [each.result for each in ended]
    counts = ", ".join(f"{results.count(each)} {each}" for each in dict.fromkeys(results))
    seconds = sum(each.seconds for each in ended)
    head = ["| what | result | found | seconds |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *map(line, ended), "", f"{counts}; {seconds:.0f} s"])
