"""`repro-audit exec`: what it says of its pins, and the lines that put them elsewhere."""

from __future__ import annotations

import os
import shlex
from enum import Enum
from itertools import groupby
from typing import TYPE_CHECKING, NoReturn

from repro_audit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from repro_audit.trial.launched.pinned import Pin

REST = (
    "Seeds, clocks and what else a program asks for are left as they are, since pinning them changes results on "
    "purpose; repro-audit check tells which of them matter."
)


class Cap(str, Enum):
    """Instruction sets that a run can be capped at."""

    AVX2 = "avx2"
    BASELINE = "baseline"


class Place(str, Enum):
    """Where lines can be put."""

    SHELL = "shell"
    DOCKER = "docker"
    SLURM = "slurm"


def lines(pins: Sequence[Pin], place: Place) -> Iterator[str]:
    """What to put into a shell, a Dockerfile or a Slurm script, and what can not be said there."""
    from repro_audit.trial.launched.pinned import COUNT

    set_here = [pin for pin in pins if pin.variable]
    for pin in set_here:
        if place is Place.SLURM and pin.variable == COUNT:
            yield f"#SBATCH --cpus-per-task={pin.value}"
    for source, group in groupby(set_here, key=lambda pin: pin.source):
        yield f"# {source}"
        for pin in group:
            yield f"{'ENV' if place is Place.DOCKER else 'export'} {pin.variable}={shlex.quote(pin.value)}"
    inside = [pin for pin in pins if not pin.variable]
    if inside:
        yield "# No variable does what follows. `repro-audit exec -- COMMAND` does it, or the program itself:"
    for pin in inside:
        yield f"#   {pin.shown}  # {pin.source}"
    yield f"# {REST}"


def told(pins: Sequence[Pin]) -> Iterator[str]:
    """What is pinned, for whoever starts the command."""
    yield "repro-audit exec: pinned are"
    for pin in pins:
        yield f"  {pin.shown} ({pin.source}{', as you have set it' if pin.kept else ''})"
    yield REST


def become(command: Sequence[str], pins: Sequence[Pin]) -> NoReturn:
    """Have a command take this process over, with all pins in force.

    Raises:
        UsageError: it can not be started.
    """
    from repro_audit.trial.launched.pinned import environment

    try:
        os.execvpe(command[0], [*command], environment(pins, os.environ))  # noqa: S606 - as asked
    except OSError as error:
        raise UsageError(
            f"{command[0]} can not be started", where="exec", why=str(error.strerror)
        ) from None
