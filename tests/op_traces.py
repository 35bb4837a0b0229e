"""Recording the ops of a function in this process, and comparing what two runs recorded."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from repro_audit.probe.clock import Clock
from repro_audit.probe.detail.ops import Ops
from repro_audit.probe.detail.sites import Sites
from repro_audit.storage.events import Detail, DetailWriter
from repro_audit.storage.trace import Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from repro_audit.storage.events import Event


class Recording:
    """An installed op probe with what it writes."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.directory = directory
        self.writer = DetailWriter(directory)
        self.clock = Clock(0, int(Phase.FORWARD))
        self.drawn: list[int] = []
        options = {"drew": self.drawn.append, **options}
        self.ops = Ops(
            writer=self.writer, sites=Sites(self.writer.intern), clock=self.clock, **options
        )

    @property
    def detail(self) -> Detail:
        """What was written so far."""
        self.writer.flush()
        return Detail.open(self.directory)

    @property
    def rows(self) -> list[Event]:
        """The same, row by row."""
        detail = self.detail
        return [detail.event(index) for index in range(len(detail))]

    def named(self, name: str) -> list[Event]:
        """The rows of one op."""
        return [row for row in self.rows if row.name == name]


@contextmanager
def recording(
    directory: Path, *, active: bool = True, tell: bool = True, **options: Any
) -> Iterator[Recording]:
    """An installed op probe, told of modules as the hooks of a trial tell it, unless those are in place."""
    made = Recording(directory, **options)
    call = torch.nn.Module.__call__

    made.ops.install()
    if tell:
        torch.nn.Module.__call__ = made.ops.telling(call)  # type: ignore[method-assign]
    made.ops.active = active
    try:
        yield made
    finally:
        torch.nn.Module.__call__ = call  # type: ignore[method-assign]
        made.ops.uninstall()
        made.writer.close()


def recorded(directory: Path, run: Callable[[], Any], **options: Any) -> Recording:
    """Run something under the probe."""
    with recording(directory, **options) as made:
        run()
    return made


def parts_at(one: Recording, other: Recording) -> Event | None:
    """The first row with the same place and inputs in both and another output; rows are paired as they come."""
    for a, b in zip(one.rows, other.rows, strict=False):
        if (a.name, a.site, a.module, a.before) == (b.name, b.site, b.module, b.before):
            if (a.after, a.meta) != (b.after, b.meta):
                return a
        elif (a.name, a.site, a.module) != (b.name, b.site, b.module):
            return None
    return None


def line_of(mark: str, path: str) -> int:
    """The line of a file that ends with a comment."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    found = [number for number, line in enumerate(lines, 1) if line.endswith(f"# {mark}")]
    assert len(found) == 1, mark
    return found[0]
