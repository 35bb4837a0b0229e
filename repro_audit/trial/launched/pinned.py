"""A command with every pin on that changes no result on purpose: what `repro-audit exec` sets.

Variables reach all programs below the command. The rest is done in each Python, which finds the `sitecustomize` of
`SITE` first on its path, as it finds that of a trial (`hook`). The command takes this process over.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from repro_audit.context import TrialContext
from repro_audit.context.imports import when_imported
from repro_audit.source import Source
from repro_audit.trial.launched import hook

SITE = Path(__file__).with_name("pinning")
"""Of one file, which calls `begin`."""
PINNED = "REPRO_AUDIT_PINNED"
"""Names the sources that each Python is to pin, with commas."""
THREADS, COUNT = "threads", "OMP_NUM_THREADS"
"""A flag that has a value unasked, and the variable that the user may have set instead."""
_UNPINNED = {"PYTHONHASHSEED": "random"}
"""Values of the user's that are none to keep."""
_in_force = ExitStack()
"""Never left: the levels hold until the process ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """One thing that is pinned."""

    source: str
    variable: str = ""
    value: str = ""
    line: str = ""
    """As `RunPin` has it; likewise `words`. A pin has a variable, a line or words."""
    words: str = ""
    kept: bool = False
    """The user had set the variable already, and it stays so."""

    @property
    def shown(self) -> str:
        """As it would be written."""
        return f"{self.variable}={self.value}" if self.variable else self.line or self.words


def pins(
    command: Sequence[str],
    environ: Mapping[str, str],
    *,
    asked: Mapping[str, str],
    skip: Collection[str] = (),
) -> list[Pin]:
    """What to pin, in the catalogue's order.

    Args:
        command: what is to run.
        environ: what the user has set.
        asked: the values of flags that ask for a pin, by their names; `threads` is by default as many as PyTorch takes
            here, or what a launcher of ranks gives to each.
        skip: ids of sources to leave as they are.
    """
    from repro_audit.sources import built_in

    launched = not {*hook.LAUNCHERS, *hook.MODULES}.isdisjoint(
        word.rpartition("/")[2] for word in command
    )
    count = environ.get(COUNT) or ("" if launched else str(cores()))
    values = {**({THREADS: count} if count else {}), **asked}
    found: list[Pin] = []
    for name, source in built_in().items():
        pin = source.run_pin
        if pin is None or name in skip:
            continue
        variables = pin.asked(values[pin.flag]) if pin.flag in values else {}
        found += [Pin(source=name, variable=each, value=variables[each]) for each in variables]
        for each, value in pin.variables.items():
            kept = environ.get(each) not in {None, "", _UNPINNED.get(each)}
            shown = environ[each] if kept else value
            found.append(Pin(source=name, variable=each, value=shown, kept=kept))
        if pin.line or pin.words:
            found.append(Pin(source=name, line=pin.line, words=pin.words))
    return found


def cores() -> int:
    """The cores that this process may use, each once: as many threads as PyTorch takes by default."""
    usable = os.sched_getaffinity(0)
    topology = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    try:
        return len({Path(topology.format(number)).read_text("ascii") for number in usable})
    except OSError:
        return len(usable)


def environment(chosen: Collection[Pin], environ: Mapping[str, str]) -> dict[str, str]:
    """The environment in which all of `chosen` is in force."""
    inside = dict.fromkeys(pin.source for pin in chosen if not pin.variable)
    variables = {pin.variable: pin.value for pin in chosen if pin.variable}
    return {**hook.variables(SITE, environ), **variables, PINNED: ",".join(inside)}


def begin() -> None:
    """In a Python below the command, before any of the program's code runs: pin what has no variable."""
    for name in filter(None, os.environ.get(PINNED, "").split(",")):
        # One by one: the whole catalogue imports NumPy, which reads variables that the program may set first.
        module = importlib.import_module(f"repro_audit.sources.{name.replace('-', '_')}")
        _pin(module.SOURCE)


def _pin(source: Source) -> None:
    pin = source.run_pin
    if pin is not None and pin.line:
        line = pin.line
        # What the user is shown is what runs.
        when_imported("torch", lambda: exec(line, {"torch": sys.modules["torch"]}))  # noqa: S102
    else:
        nowhere = Path(os.devnull)  # nobody reads which lines it concerns
        context = TrialContext(seed=0, setting={}, directory=nowhere, root=Path.cwd())
        _in_force.enter_context(source.apply(source.pinned, context))
