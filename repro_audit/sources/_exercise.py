"""Whether a source can be exercised on this machine, as far as that is known without running anything."""

from __future__ import annotations

import importlib.metadata
import os
import re
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from repro_audit.experiment import Judgement
from repro_audit.source import Levels, Source
from repro_audit.storage.facts import Facts

A_DEVICE = "a CUDA device"
CUDA_DEVICES = ("/dev/nvidia0", "/dev/dxg", "/dev/kfd")
"""NVIDIA's, the same in WSL, and ROCm's, which PyTorch drives under the name of CUDA."""


class Answer(Enum):
    """Whether it can be."""

    YES = "yes"
    NO = "no"
    BY_PROGRAM = "depends on the program"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """What an audit could do with a source here."""

    answer: Answer
    reason: str = ""
    """Why not."""
    varied: tuple[str, ...] = ()
    """The levels that a program with a loader and files of its own would get."""

    @property
    def in_short(self) -> str:
        """Why not, up to the first stop: the rest speaks of a program."""
        return re.split("[;:]", self.reason)[0]


def prospect(source: Source, machine: Facts) -> Prospect:
    """What the source itself would say of a program on a machine with and without a CUDA device."""
    if source.places_trials:
        why = source.levels(machine)
        return Prospect(answer=Answer.NO, reason=str(why), varied=("each other kind of node",))
    with_cuda = replace(machine, cuda=A_DEVICE)
    answer, elsewhere = source.levels(machine), source.levels(with_cuda)
    varied = elsewhere.varied if isinstance(elsewhere, Levels) else ()
    if isinstance(answer, str) and isinstance(elsewhere, Levels):
        return Prospect(answer=Answer.NO, reason=answer, varied=varied)
    # Some levels run anywhere, but that they agree means nothing without a device.
    held = Judgement(id=source.id, status="held")
    equal = source.judge(held, machine)
    if equal.status == "not-exercised" and equal != source.judge(held, with_cuda):
        return Prospect(answer=Answer.NO, reason=equal.reason, varied=varied)
    if isinstance(answer, str):
        return Prospect(answer=Answer.BY_PROGRAM)
    return Prospect(answer=Answer.YES, varied=answer.varied)


def this_machine() -> Facts:
    """This machine, with a program that uses whatever a source may need."""
    return Facts(
        loaders=({"num_workers": -1, "batch_size": 1, "persistent": False, "dataset": "Dataset"},),
        written=("a file",),
        cuda=A_DEVICE if _may_have_cuda() else "",
    )


def _may_have_cuda() -> bool:
    """Without importing torch: a build for CPUs says so in its version, and a device has a file."""
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return False
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in {"", "-1"}
    return not version.endswith("+cpu") and not hidden and any(map(_exists, CUDA_DEVICES))


def _exists(name: str) -> bool:
    return Path(name).exists()
