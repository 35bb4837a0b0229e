"""Running a training under the probe in this process, and reading what it saw."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from repro_audit.probe import Probe
from repro_audit.storage.trace import Phase, Role, Trace, TraceWriter
from repro_audit.trial.driver.notes import Notes
from repro_audit.trial.driver.training import train

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from repro_audit.storage.trace import Observation


class Watched:
    """A probe with the trace that it writes."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.directory = directory
        self.writer = TraceWriter(directory / "trace")
        self.probe = Probe(trace=self.writer, **{"max_steps": 1_000, **options})

    @property
    def rows(self) -> list[Observation]:
        """What was observed so far."""
        self.writer.flush()
        return list(Trace.open(self.directory / "trace"))

    def outcomes(self, phase: Phase | None = None, step: int | None = None) -> list[str]:
        """Names of outcomes, in order."""
        return [
            row.name
            for row in self.rows
            if row.role is Role.OUTCOME
            and (phase is None or row.phase is phase)
            and (step is None or row.step == step)
        ]

    def contexts(self, name: str) -> list[Observation]:
        """The circumstances of one name."""
        return [row for row in self.rows if row.role is Role.CONTEXT and row.name == name]

    def digests(self, name: str) -> list[bytes]:
        """What was observed under one name."""
        return [row.digest for row in self.rows if row.name == name]


@contextmanager
def watching(directory: Path, **options: Any) -> Iterator[Watched]:
    """An installed probe."""
    watched = Watched(directory, **options)
    watched.probe.install()
    try:
        yield watched
    finally:
        watched.probe.uninstall()


def trained(
    directory: Path,
    build: Callable[..., object],
    *,
    steps: int = 4,
    seed: int = 0,
    whole_epochs: bool = False,
) -> tuple[Watched, Notes]:
    """Train what `build` returns, as a trial does."""
    notes = Notes()
    with watching(directory, max_steps=steps) as watched:
        train(
            build,
            probe=watched.probe,
            seed=seed,
            steps=steps,
            built=lambda _: None,
            notes=notes,
            whole_epochs=whole_epochs,
        )
    return watched, notes
