"""Trials made by hand and an oracle that hands them out, for tests of what is concluded from trials."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np
import xxhash

from repro_audit.storage.events import DETAIL, MAIN, DetailWriter
from repro_audit.storage.facts import Facts
from repro_audit.storage.trace import Trace, TraceWriter
from repro_audit.storage.values import DATA, INDEX
from repro_audit.trial.oracle import Trial
from repro_audit.trial.runner import Ended

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from repro_audit.experiment import RunStatus, Setting
    from repro_audit.storage.facts import Key
    from repro_audit.trial.oracle import TrialOracle
    from repro_audit.trial.request import Watch
    from tests.details import Row as Event
    from tests.traces import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What a trial leaves."""

    rows: Sequence[Row] = ()
    values: Mapping[Key, Sequence[float]] = field(default_factory=dict)
    """Saved as float32, where the trial is asked for them."""
    events: Sequence[Event] = ()
    facts: Facts = field(default_factory=Facts)
    status: RunStatus = "ok"
    exit: str = "exited with status 0"


class FakeOracle:
    """Answers each setting with what `leaves` says of it, and keeps what it was asked."""

    def __init__(self, directory: Path, leaves: Callable[[Setting, Watch], Left]) -> None:
        self.directory = directory
        self.leaves = leaves
        self.trials: dict[str, Trial] = {}
        self.asked: list[list[tuple[Setting, Watch]]] = []

    @property
    def as_oracle(self) -> TrialOracle:
        """This, as what takes an oracle wants it."""
        return cast("TrialOracle", self)

    def try_settings(self, settings: Sequence[tuple[Setting, Watch]]) -> list[Trial]:
        """As `TrialOracle.try_settings`."""
        self.asked.append(list(settings))
        return [self.trial(setting, watch) for setting, watch in settings]

    def trial(self, setting: Setting, watch: Watch) -> Trial:
        """One trial, which saves the values that it is asked for."""
        left = self.leaves(setting, watch)
        name = f"t{len(self.trials):02}"
        directory = self.directory / name
        _write_trace(directory / "trace", left.rows)
        _write_detail(directory / DETAIL / MAIN, left.events)
        saved = {key: value for key, value in left.values.items() if key in watch.capture}
        _write_values(directory / "values", saved)
        ended = Ended(status=left.status, seconds=1.0, output="", facts=left.facts, exit=left.exit)
        self.trials[name] = Trial(
            id=name,
            setting=setting,
            directory=directory,
            ended=ended,
            digest=Trace.open(directory / "trace").outcome_digest()
            if left.status == "ok"
            else None,
            root="/tree",
        )
        return self.trials[name]


def _write_trace(directory: Path, rows: Sequence[Row]) -> None:
    writer = TraceWriter(directory)
    for row in rows:
        name, meta = writer.intern(row.name), writer.intern(row.meta)
        writer.add(row.step, row.phase, row.role, name, meta, row.digest)
    writer.close()


def _write_detail(directory: Path, events: Sequence[Event]) -> None:
    writer = DetailWriter(directory)
    for row in events:
        name, site, module, meta = map(writer.intern, (row.name, row.site, row.module, row.meta))
        before, after = (xxhash.xxh3_128_digest(text.encode()) for text in (row.before, row.after))
        writer.add(row.kind, row.step, row.phase, name, site, module, meta, before, after)
    writer.close()


def _write_values(directory: Path, values: Mapping[Key, Sequence[float]]) -> None:
    directory.mkdir()
    start, lines, parts = 0, [], []
    for key, value in values.items():
        data = np.array(value, dtype=np.float32).tobytes()
        entry = {
            "key": key,
            "start": start,
            "bytes": len(data),
            "dtype": "float32",
            "shape": [len(value)],
        }
        lines.append(json.dumps(entry) + "\n")
        parts.append(data)
        start += len(data)
    (directory / INDEX).write_text("".join(lines), encoding="utf-8")
    (directory / DATA).write_bytes(b"".join(parts))
