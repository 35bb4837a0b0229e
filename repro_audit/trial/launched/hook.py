"""How a trial reaches the interpreters that a command starts: a `sitecustomize` of its own, first on their path.

Python imports the module of that name when it starts: coverage and debugpy reach subprocesses so, too. Ours gives way
to the user's own at once, and does nothing more where no torch can be imported.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from repro_audit.probe.files import HOOK

LAUNCHERS = ("torchrun", "accelerate", "deepspeed", "composer", "mpirun")
MODULES = (
    "torch.distributed.run",
    "torch.distributed.launch",
    "accelerate.commands.launch",
    "accelerate.commands.accelerate_cli",
)
"""Programs that start training in other processes, and need the machine as it is: hosts, ports, clocks."""
_PACKAGE_PARENT = Path(__file__).resolve().parents[3]
_SITE = {"site-packages", "dist-packages"}

_TEXT = '''\
"""Reaches this interpreter for a trial of repro-audit, and gives way to the user's own sitecustomize."""


def _reach():
    import sys

    here = {here!r}
    sys.path[:] = [entry for entry in sys.path if entry != here]
    ours = sys.modules.pop(__name__, None)
    try:
        import {name}
    except ImportError as error:
        if error.name != {name!r}:
            raise
        sys.modules[__name__] = ours
    finally:
        _begin(sys)


def _begin(sys):
    words = tuple(sys.orig_argv)
    if words in {bystanders!r} or not {launchers!r}.isdisjoint(
        word.rpartition("/")[2] for word in words[1:5]
    ):
        return
    if any(word.startswith("from multiprocessing.resource_tracker") for word in words[1:]):
        return
    if not any(finder.find_spec("torch", None) for finder in sys.meta_path):
        return
    parent = {parent!r}
    if parent and parent not in sys.path:
        sys.path.append(parent)
    try:
        from repro_audit.trial.launched.traced import begin
    except ImportError as error:
        with open({unusable!r}, "a") as file:
            file.write(sys.executable + "\\n" + str(error) + "\\n")
        return
    begin({directory!r})


_reach()
del _reach, _begin
'''

UNUSABLE = "unusable.txt"
"""In a trial's directory: interpreters that lack what a trace needs, and what that is, a line each."""


def write(directory: Path, bystanders: Iterable[tuple[str, ...]]) -> Path:
    """Write the module for a trial; the directory that it lies in."""
    place = directory / HOOK
    place.mkdir()
    # Of an installed package the parent would bring all of its neighbours along.
    parent = None if _PACKAGE_PARENT.name in _SITE else str(_PACKAGE_PARENT)
    text = _TEXT.format(
        here=str(place),
        name="sitecustomize",
        bystanders=frozenset(bystanders),
        launchers=frozenset((*LAUNCHERS, *MODULES)),
        parent=parent,
        unusable=str(directory / UNUSABLE),
        directory=str(directory),
    )
    (place / "sitecustomize.py").write_text(text, encoding="utf-8")
    return place


def variables(place: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """An environment, in which interpreters find the module."""
    path = environment.get("PYTHONPATH")
    return {**environment, "PYTHONPATH": os.pathsep.join(filter(None, (str(place), path)))}
