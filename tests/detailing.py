"""Running small programs under the line-level probe, and reading what it wrote."""

from __future__ import annotations

import importlib.util
import sys
import textwrap
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from repro_audit.probe.clock import Clock
from repro_audit.probe.detail.lines import Lines
from repro_audit.probe.detail.rng_log import RngLog
from repro_audit.probe.detail.sites import Sites
from repro_audit.storage.events import Detail, DetailWriter, Event, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Seen:
    """The events of one process."""

    def __init__(self, directory: Path) -> None:
        self.detail = Detail.open(directory)
        self.events = [self.detail.event(index) for index in range(len(self.detail))]

    def of(self, kind: Kind) -> list[Event]:
        """The events of one kind, in order."""
        return [event for event in self.events if event.kind is kind]

    def draws(self) -> list[tuple[str, str, int]]:
        """Each movement of a generator: its name, what it was, and the line."""
        return [(event.name, event.meta, line_of(event)) for event in self.of(Kind.DRAW)]

    def lines(self) -> list[int]:
        """The lines in the order in which they finished, without returns."""
        return [line_of(event) for event in self.of(Kind.LINE) if event.name != "return"]

    def words(self, file: str = "") -> list[tuple[object, ...]]:
        """All that is compared between two runs, of files with this in their names."""
        return [
            (
                *(event.kind, event.step, event.phase, event.name, event.meta),
                *(line_of(event), event.before, event.after),
            )
            for event in self.events
            if event.site is None or file in event.site.file
        ]


def line_of(event: Event) -> int:
    """The line of an event; 0 for none."""
    return event.site.line if event.site is not None else 0


def first_cause(one: Seen, other: Seen) -> Event | None:
    """The first event that began alike in two runs of the same course, and ended differently."""
    for ours, theirs in zip(one.events, other.events, strict=False):
        assert (ours.kind, ours.name, ours.site) == (theirs.kind, theirs.name, theirs.site)
        if ours.before == theirs.before and ours.after != theirs.after:
            return ours
    return None


@contextmanager
def tracing(directory: Path, **budget: Any) -> Iterator[Lines]:
    """Lines and ledger on, written to a directory."""
    writer = DetailWriter(directory)
    clock = Clock()
    lines = Lines(
        writer=writer,
        sites=Sites(writer.intern),
        clock=clock,
        ledger=RngLog(writer=writer, clock=clock),
        **budget,
    )
    lines.install()
    try:
        yield lines
    finally:
        lines.uninstall()
        writer.close()


def load(directory: Path, source: str, name: str = "program") -> dict[str, Any]:
    """Import a program's source from a file of its own; its names."""
    path = directory / f"{name}.py"
    path.write_text(textwrap.dedent(source).lstrip("\n"))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    return vars(module)


def traced(directory: Path, source: str, **given: object) -> Seen:
    """Trace the import of a program; or, where it defines `run`, the call of that alone, with names given to it."""
    directory.mkdir(parents=True, exist_ok=True)
    written = directory / "detail"
    if "def run(" not in source:
        with tracing(written):
            load(directory, source)
        return Seen(written)
    program = load(directory, source)
    program |= given
    with tracing(written):
        program["run"]()
    return Seen(written)
