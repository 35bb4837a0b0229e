"""The formats of a report, each a pure function of it; which one a file is to have, and writing it there."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import final

from repro_audit.errors import UsageError, nearest
from repro_audit.report.model import Report
from repro_audit.report.saving import STDOUT, write

_NAMED = re.compile(r"([a-z]+):(.*)", re.DOTALL)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A form in which a report may be written."""

    name: str
    suffixes: tuple[str, ...]
    """Of the files that have it unless they are said to have another one."""
    module: str
    """Of this package, with a function `render`; imported when it is needed, as `--help` names all formats."""

    def render(self, report: Report) -> str:
        """The report in this format."""
        module = importlib.import_module(f"{__package__}.{self.module}")
        rendered: str = module.render(report)
        return rendered


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A file to write, or `-` for stdout."""

    format: Format
    destination: str


TERMINAL = Format(name="terminal", suffixes=(".txt",), module="as_text")
JSON = Format(name="json", suffixes=(".json",), module="as_json")
FORMATS = {
    each.name: each
    for each in (
        TERMINAL,
        JSON,
        Format(name="html", suffixes=(".html", ".htm"), module="html"),
        Format(name="sarif", suffixes=(".sarif",), module="sarif"),
        Format(name="junit", suffixes=(".xml",), module="junit"),
        Format(name="markdown", suffixes=(".md",), module="markdown"),
        Format(name="github", suffixes=(), module="github"),
        Format(name="gitlab", suffixes=(), module="gitlab"),
    )
}
"""By name."""
BY_SUFFIX = {suffix: each for each in FORMATS.values() for suffix in each.suffixes}


def known(name: str, *, where: str) -> Format:
    """The format with a name.

    Raises:
        UsageError: there is none; `where` is what asked for it.
    """
    if name not in FORMATS:
        raise UsageError(
            f"there is no format {name!r}", where=where, next_step=nearest(name, FORMATS, "format")
        )
    return FORMATS[name]


def output(asked: str, *, where: str, chosen: Format | None = None) -> Output:
    """Read `FILE` or `FORMAT:FILE`, where `-` is stdout.

    Args:
        asked: the words.
        where: what asked for it.
        chosen: the format of a file without a name before it; by default its suffix decides.

    Raises:
        UsageError: there is no such format, or nothing can be written there.
    """
    name, destination = _split(asked)
    if name is not None:
        chosen = known(name, where=where)
    check(destination, where=where)
    return Output(format=chosen or _by_suffix(destination, where), destination=destination)


def below(asked: str, directory: Path) -> str:
    """The same words, with a relative path put below a directory."""
    name, destination = _split(asked)
    if destination in {"", STDOUT}:
        return asked
    return f"{'' if name is None else f'{name}:'}{directory / destination}"


def check(destination: str, *, where: str) -> None:
    """Say before an audit that its report can not be saved there, where that can be known.

    Raises:
        UsageError: it can not.
    """
    if destination == STDOUT:
        return
    path = Path(destination).absolute()
    why, next_step = "", ""
    if not destination or path.is_dir():
        why, next_step = "it names a directory", "name a file, such as report.json"
    elif not path.parent.is_dir():
        why, next_step = "its directory does not exist", "make the directory first"
    elif not os.access(path if _is_device(path) else path.parent, os.W_OK):
        why = "nothing may be written there"
    if why:
        raise UsageError(
            f"the report can not be saved as {destination!r}",
            where=where,
            why=why,
            next_step=next_step,
        )


def refuse_twice(outputs: Iterable[Output], *, where: str) -> None:
    """Refuse two reports in one place.

    Raises:
        UsageError: there are two.
    """
    seen = set()
    for each in outputs:
        to_stdout = each.destination == STDOUT
        place = STDOUT if to_stdout else os.path.realpath(each.destination)
        if place in seen:
            what = "to stdout" if to_stdout else f"as {each.destination!r}"
            raise UsageError(f"two reports would be written {what}", where=where)
        seen.add(place)


def save(report: Report, outputs: Iterable[Output]) -> None:
    """Write each of the outputs, also where another one can not be written.

    Raises:
        UsageError: one of them can not be.
    """
    errors = [(output.destination, _error(report, output)) for output in outputs]
    for destination, error in errors:
        if error is not None:
            raise UsageError(
                f"the report can not be saved as {destination!r}", why=str(error)
            ) from error


def _error(report: Report, output: Output) -> OSError | None:
    """What kept the output from being written."""
    try:
        write(output.format.render(report), output.destination)
    except OSError as error:
        return error
    return None


def _split(asked: str) -> tuple[str | None, str]:
    """The format's name, None where there is none, and the file."""
    named = _NAMED.fullmatch(asked)
    return (None, asked) if named is None else (named[1], named[2])


def _by_suffix(destination: str, where: str) -> Format:
    suffix = Path(destination).suffix.lower()
    if suffix not in BY_SUFFIX:
        there_are = ", ".join(f"{suffix} ({each.name})" for suffix, each in BY_SUFFIX.items())
        names = ", ".join(FORMATS)
        raise UsageError(
            f"{destination!r} does not say its format",
            where=where,
            why=f"the suffixes are {there_are}",
            next_step=f"write FORMAT:FILE, where FORMAT is one of {names}",
        )
    return BY_SUFFIX[suffix]


def _is_device(path: Path) -> bool:
    return path.exists() and not path.is_file()
