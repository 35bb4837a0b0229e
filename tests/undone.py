"""Puts every level of every source in force, ends it, and finds what is not as it was before.

Run as `python -m tests.undone DIRECTORY`: it prints, as JSON, what each level left behind.
"""

from __future__ import annotations

import gc
import importlib
import json
import locale
import os
import signal
import sys
import threading
import time
import warnings
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro_audit.context.imports import when_imported
from repro_audit.source import Fix, Scope, Source, in_words
from repro_audit.sources import built_in
from tests.sourcing import context, in_force
from tests.wrappers import levels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from repro_audit.context import TrialContext

_OURS = ("repro_audit", "tests", "__main__")
_PLAIN = (bool, int, float, str, tuple)
_CONTAINERS = (dict, list, set)


class State:
    """Every attribute of every loaded module and of its classes, what plain containers there hold, and all settings."""

    def __init__(self) -> None:
        self._owners: list[tuple[str, Any, dict[str, Any], list[int]]] = []
        self._held: list[tuple[str, Any, Any]] = []
        seen: set[int] = set()
        for place, module in list(sys.modules.items()):
            if not place.startswith(_OURS) and hasattr(module, "__dict__"):
                self._add(place, module)
                for value in list(vars(module).values()):
                    if isinstance(value, type) and id(value) not in seen:
                        seen.add(id(value))
                        self._add(f"{value.__module__}.{value.__qualname__}", value)
        self._settings = settings()

    def _add(self, name: str, owner: Any) -> None:
        before = dict(vars(owner))
        self._owners.append((name, owner, before, [id(value) for value in before.values()]))
        self._held.extend(
            (f"{name}.{each}", value, type(value)(value))
            for each, value in before.items()
            if type(value) in _CONTAINERS
        )

    def changed(self) -> list[str]:
        """What is not as it was when this was made."""
        names = [
            f"{name}.{each}"
            for name, owner, before, ids in self._owners
            if [id(value) for value in vars(owner).values()] != ids
            for each in {**before, **vars(owner)}
            if not _same(before.get(each, self), vars(owner).get(each, self))
        ]
        held = [name for name, value, before in self._held if len(value) != len(before)]
        now = settings()
        return [
            *names,
            *held,
            *(name for name, value in self._settings.items() if now[name] != value),
        ]


def _same(before: Any, now: Any) -> bool:
    return now is before or (type(now) is type(before) in _PLAIN and now == before)


def settings() -> dict[str, Any]:
    """What is set in this process outside of any attribute."""
    import torch
    import torch._inductor.config as inductor

    backends: Any = torch.backends
    os.umask(umask := os.umask(0))
    return {
        "os.environ": dict(os.environ),
        "working directory": str(Path.cwd()),
        "umask": umask,
        "locale": locale.setlocale(locale.LC_ALL),
        "time zone": (time.tzname, time.timezone),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "switch interval": sys.getswitchinterval(),
        "gc": (gc.isenabled(), gc.get_threshold(), list(gc.callbacks)),
        "trace": (sys.gettrace(), sys.getprofile()),
        "threads": threading.active_count(),
        "children": _children(),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "torch.get_num_threads": torch.get_num_threads(),
        "deterministic algorithms": (
            torch.get_deterministic_debug_mode(),
            torch._C._get_deterministic_fill_uninitialized_memory(),
            getattr(inductor, "deterministic", None),  # since PyTorch 2.9
        ),
        "matmul precision": (
            torch.get_float32_matmul_precision(),
            backends.mkldnn.matmul.fp32_precision,
            backends.cuda.matmul.allow_tf32,
        ),
        "torch.backends.cudnn": (
            backends.cudnn.enabled,
            backends.cudnn.benchmark,
            backends.cudnn.deterministic,
            backends.cudnn.allow_tf32,
        ),
    }


def _children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def left_behind(state: State, source: Source, level: str, directory: Path) -> list[str]:
    """What is not as it was once a level is no longer in force, in a process that nothing else is done in."""
    import torch

    directory.mkdir()
    trial = context(directory, source, level, elsewhere=directory)
    with in_force(source, level, trial):
        for callback in trial.on_run:
            callback()
        trial.built(torch.nn.Linear(1, 1))
    return state.changed()


def in_child(work: Callable[[], list[str]]) -> list[str]:
    """Do something in a forked process, which nothing else is then done in."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        try:
            found = work()
        except BaseException as error:
            found = [repr(error)]
        with os.fdopen(writer, "w", encoding="utf-8") as pipe:
            json.dump(found, pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return list(json.loads(text or '["it crashes"]'))


def made_up(
    name: str, apply: Callable[[str, TrialContext], AbstractContextManager[None]]
) -> Source:
    """A source that is in no catalogue."""
    return Source(
        name=name,
        doc=None,
        scope=Scope.RERUN,
        pinned="pinned",
        levels=lambda _facts: "no level but the pinned one",
        apply=apply,
        judge=in_words(held="", broke=""),
        fix=lambda _facts: Fix(summary="", snippet=""),
    )


@contextmanager
def _leak(_level: str, _trial: TrialContext) -> Iterator[None]:
    import torch

    owners: tuple[tuple[Any, str], ...] = (
        (os, "getlogin"),
        (torch, "manual_seed"),
        (torch.utils.data.DataLoader, "__iter__"),
    )
    for owner, name in owners:
        setattr(owner, name, lambda *_: None)
    torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
    os.environ["LEFT"] = "behind"
    os.umask(0o137)
    yield


def look(directory: Path) -> dict[str, list[str]]:
    """What each level of each source leaves behind, beyond what a process changes that puts nothing in force."""
    catalogue = {
        source: levels(source) for source in (*built_in().values(), made_up("leaky", _leak))
    }
    when_imported(
        "never", lambda: None
    )  # by the finder that waits for imports, which is no source's
    state = State()
    nothing = made_up("nothing", lambda _level, _trial: nullcontext())
    usual = in_child(partial(left_behind, state, nothing, "pinned", directory / "nothing"))
    usual.append("torch.utils.hooks.RemovableHandle.next_id")  # a number that only grows
    found: dict[str, list[str]] = {}
    for source, tried in catalogue.items():
        for level in tried:
            work = partial(left_behind, state, source, level, directory / str(len(found)))
            left = [name for name in in_child(work) if name not in usual]
            found[f"{source.id}: {level}"] = left
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for needed in ("numpy", "torch.utils.data", "uuid"):
        importlib.import_module(needed)
    gc.freeze()  # or every child would copy most of what this process holds
    sys.stdout.write(json.dumps(look(Path(sys.argv[1]))))
