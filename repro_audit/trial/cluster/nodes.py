"""What a node of a cluster is, as a process there sees it before anything of PyTorch is imported."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from repro_audit.storage.fingerprint import VARIABLES
from repro_audit.trial.fingerprint import cpu_model, text_of

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = tuple[str, ...]
"""What decides how a machine computes, each in words; nodes that share it all are of one kind."""

_INSTRUCTIONS = {"avx512f": "AVX512", "avx2": "AVX2", "avx": "AVX", "sve": "SVE", "asimd": "NEON"}
"""By the flag of a CPU: instructions for which there are kernels of their own, the widest first."""
_NVIDIA = Path("/proc/driver/nvidia")
_OF_THE_MACHINE = re.compile(
    r"(\w*PATH|HOME|PWD|OLDPWD|SHELL|SHLVL|USER|LOGNAME|HOSTNAME|MAIL|TERM|DISPLAY|_|TMPDIR|TMP|TEMP|VIRTUAL_ENV"
    r"|(CUDA|NVIDIA)_VISIBLE_DEVICES|LD_\w+|PYTHON(?!HASHSEED)\w+|(CONDA|RAY|SLURM|SSH|XDG)_\w+)"
)
"""Variables that say where things are on a machine, or who is logged in there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node, as Ray lists it."""

    id: str
    name: str
    cpus: int
    gpus: int


def kind() -> Kind:
    """Of this machine: CPU, its instructions and cores, GPUs and driver, libraries, and the variables that matter."""
    variables = (name for name in VARIABLES if name in os.environ)
    found = (
        cpu_model(),
        _instructions(),
        f"{os.cpu_count()} cores",
        _gpus(),
        *(f"{name} {metadata.version(name)}" for name in ("torch", "numpy")),
        *(f"{name}={os.environ[name]}" for name in variables if not is_of_the_machine(name)),
    )
    return tuple(text for text in found if text)


def is_of_the_machine(variable: str) -> bool:
    """Whether a variable of the environment means something on one machine only."""
    return _OF_THE_MACHINE.fullmatch(variable) is not None


def in_words(kinds: Mapping[str, Kind]) -> dict[str, str]:
    """By what each is called: a kind as its CPU, and what of the rest not all of them share."""
    shared = set.intersection(*map(set, kinds.values())) if kinds else set()
    return {
        name: ", ".join(dict.fromkeys((*each[:1], *(part for part in each if part not in shared))))
        for name, each in kinds.items()
    }


def _instructions() -> str:
    flags = set(re.findall(r"\w+", text_of(Path("/proc/cpuinfo")).partition("\n\n")[0]))
    return next((words for flag, words in _INSTRUCTIONS.items() if flag in flags), "")


def _gpus() -> str:
    """`NVIDIA H100 80GB HBM3, driver 570.124`; as the driver tells without a context on any device."""
    files = sorted(_NVIDIA.glob("gpus/*/information"))
    models = (re.search(r"Model:\s*(.+)", text_of(file)) for file in files)
    names = ", ".join(sorted({match[1].strip() for match in models if match}))
    driver = re.search(r"Kernel Module\D*([\d.]+)", text_of(_NVIDIA / "version"))
    return f"{names}, driver {driver[1]}" if names and driver else names
