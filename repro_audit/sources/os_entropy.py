"""Random numbers of the operating system decide the result.

## What it does
The audit feeds whatever draws from the operating system from one stream of numbers (A, pinned) and from another (B):
`os.urandom`, `os.getrandom`, `random.SystemRandom`, `secrets`, `uuid.uuid1` and `uuid4`, and all that is seeded from
there where the program gives no seed: `np.random.default_rng()`, `SeedSequence()`, `RandomState()`,
`np.random.seed()`, `random.Random()`, `random.seed()`, `torch.seed()` and `torch.Generator().seed()`; also the names of
temporary files (`tempfile`), and `/dev/urandom` where Python opens it (4 MiB each time). Another result under B
convicts it, and the report lists the lines that drew. Each line of the program has a stream of its own, and so has each
worker process. *Same*: both streams give the same. Not seen is what other C code asks of the kernel. Names and keys
that libraries make up for files and connections between processes stay the operating system's own.

## Why it breaks reproducibility
The operating system gathers noise from hardware, and hands out other numbers at every call, on purpose. No seed
reaches them. A generator that is made or seeded without a seed asks there for one, so it starts anywhere, whatever
`seed_everything` did to the ambient generators before.

## Example
`default_rng()` without a seed starts anywhere.

```python
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(seed):
    torch.manual_seed(seed)
    np.random.seed(seed)
    rng = np.random.default_rng()
    x = torch.from_numpy(rng.standard_normal((64, 8), "float32"))
    return nn.Linear(8, 1), DataLoader(
        TensorDataset(x, x.sum(1, keepdim=True)), batch_size=8
    )
```

## Use instead
Give every generator a seed.

```python
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(seed):
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.standard_normal((64, 8), "float32"))
    return nn.Linear(8, 1), DataLoader(
        TensorDataset(x, x.sum(1, keepdim=True)), batch_size=8
    )
```

## References
- NumPy: `default_rng`, "If None, then fresh, unpredictable entropy will be pulled from the OS":
  <https://numpy.org/doc/stable/reference/random/generator.html#numpy.random.default_rng>
- Python: `random.seed`: <https://docs.python.org/3/library/random.html#random.seed>
- PyTorch: `torch.seed`: <https://docs.pytorch.org/docs/stable/generated/torch.seed.html>
- Linux: urandom(4): <https://man7.org/linux/man-pages/man4/urandom.4.html>
"""

from __future__ import annotations

import hashlib
import itertools
import multiprocessing
import operator
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from repro_audit.context import TrialContext
from repro_audit.context.numbering import Numbering, position
from repro_audit.experiment import Judgement
from repro_audit.fixes.remedies import Instead
from repro_audit.fixes.seeding import Argument, SeedOnce
from repro_audit.probe.files import is_users
from repro_audit.replacements import Replacements
from repro_audit.source import Fix, Levels, Scope, Source, Verdict
from repro_audit.sources._ambient import OTHER, PINNED
from repro_audit.sources._program import Lines, evidence, logged, noted
from repro_audit.sources.emulation.callers import asker
from repro_audit.sources.emulation.devices import replace_devices, replace_names
from repro_audit.storage import reads
from repro_audit.storage.facts import Facts, Json

ID = "os-entropy"
LOG = "entropy.jsonl"
SEED_BYTES = 32
GENERATOR_BITS = 53
"""`torch.Generator.seed` draws as many, which a double holds."""
MADE_UP = 1 << 40
"""Set in a host's number that is no hardware address."""

_PRIVATE = (
    tempfile.__file__,
    *(
        str(Path(multiprocessing.__file__).with_name(name))
        for name in ("process.py", "connection.py", "forkserver.py", "shared_memory.py")
    ),
)
"""Who draws names and keys that must differ between processes, and decide nothing; `tempfile` seeds a generator."""
_PROVIDERS = (random.__file__, str(Path(random.__file__).with_name("secrets.py")))
_IMPORTING = "<frozen importlib"


class Streams:
    """A stream of bytes for each place that draws: it begins when the program does, whatever was imported before.

    Where imports draw too, a fresh process draws more than one forked from a process that has imported it all. So an
    import within a line has a stream apart from the line's own.
    """

    def __init__(
        self, level: str, roots: tuple[str, ...], lines: Lines, processes: Numbering
    ) -> None:
        self._level = level
        self._roots = roots
        self._lines = lines
        self._processes = processes
        self._counts: dict[tuple[Any, ...], itertools.count[int]] = {}

    def restart(self) -> None:
        """Begin all streams anew, for the next run in this process."""
        self._counts.clear()

    def drawn(self) -> Json:
        """Of the program's first process: each place, and how often it has drawn."""
        return [[*key[:-1], position(count)] for key, count in self._counts.items() if not key[-1]]

    def go_on(self, drawn: Json) -> None:
        """Let each place draw what comes after that."""
        for *place, count in drawn:
            self._counts[(*place, ())] = itertools.count(count)

    def draw(self, size: int, frame: FrameType | None) -> bytes | None:
        """The next bytes for whoever is calling; None for one who shall have the operating system's."""
        place, users, importing = _who(frame)
        if place is None:
            return None
        if not importing:
            self._lines.note(users)
        file = place.f_code.co_filename
        for root in self._roots:  # the same program, whatever path this trial has it at
            file = file.removeprefix(root)
        key = (file, place.f_lineno, place.f_code.co_name, importing, self._processes.own())
        count = next(
            self._counts.setdefault(key, itertools.count())
        )  # both atomic: no lock to fork
        return hashlib.shake_256(repr((self._level, key, count)).encode()).digest(size)

    def draw_for_program(self, size: int, frame: FrameType | None) -> bytes | None:
        """The next bytes for a line of the program, or for a library that works for it; None for any other."""
        return self.draw(size, frame) if asker(frame) is not None else None


def _who(frame: FrameType | None) -> tuple[FrameType | None, FrameType | None, bool]:
    """Where the draw is made for, the program's line if it is one, and whether an import is under way."""
    place, importing = None, False
    while frame is not None:
        filename = frame.f_code.co_filename
        if is_users(filename):
            return frame, frame, importing
        importing = importing or filename.startswith(_IMPORTING)
        if place is None and filename not in _PROVIDERS:
            if filename in _PRIVATE:
                return None, None, False
            place = frame
        frame = frame.f_back
    return place, None, importing


def levels(facts: Facts) -> Levels | str:
    """Another stream, where anything draws."""
    if not facts.survey.get(ID):
        return facts.seen("nothing was seen to draw random numbers from the operating system")
    return Levels(varied=(OTHER,))


@contextmanager
def apply(level: str, trial: TrialContext) -> Iterator[None]:
    """Feed everything that asks the operating system for random numbers from the level's streams."""
    roots = tuple(f"{root}{os.sep}" for root in (trial.root, trial.elsewhere) if root is not None)
    streams = Streams(level, roots, Lines(trial.directory / LOG), trial.processes)
    trial.on_run.append(streams.restart)
    trial.checkpoint.emulated[ID] = (streams.drawn, streams.go_on)
    with Replacements() as replacements:
        _replace_bytes(streams, replacements)
        _replace_seeding(streams, replacements)
        replace_devices(streams.draw, replacements)
        replace_names(streams.draw_for_program, replacements)
        trial.when_imported("uuid", lambda: _replace_uuids(streams, replacements))
        trial.when_imported("torch", lambda: _replace_generator(streams, replacements))
        yield


def _replace_bytes(streams: Streams, replacements: Replacements) -> None:
    """`os.urandom` and `os.getrandom`; `SystemRandom`, and with it `secrets` and NumPy, look up their own name."""
    original = os.urandom

    def urandom(size: int, /) -> bytes:
        theirs = original(size)  # which has the words for what may not be given
        drawn = streams.draw(operator.index(size), sys._getframe(1))
        return theirs if drawn is None else drawn

    replacements.attribute(os, "urandom", urandom)
    replacements.attribute(random, "_urandom", urandom)
    getrandom: Callable[..., bytes] | None = getattr(os, "getrandom", None)
    if getrandom is not None:

        def from_stream(size: int, flags: int = 0) -> bytes:
            theirs = getrandom(size, flags)
            drawn = streams.draw(operator.index(size), sys._getframe(1))
            return theirs if drawn is None else drawn

        replacements.attribute(os, "getrandom", from_stream)


def _replace_seeding(streams: Streams, replacements: Replacements) -> None:
    """`random.Random()` and `random.seed()`, whose C code asks the kernel itself."""
    original = random.Random.seed
    ambient = random.seed

    def seed(self: random.Random, a: Any = None, version: int = 2) -> None:
        drawn = streams.draw(SEED_BYTES, sys._getframe(1)) if a is None else None
        original(self, a if drawn is None else int.from_bytes(drawn, "big"), version)

    def seed_ambient(a: Any = None, version: int = 2) -> None:
        drawn = streams.draw(SEED_BYTES, sys._getframe(1)) if a is None else None
        ambient(a if drawn is None else int.from_bytes(drawn, "big"), version)

    replacements.attribute(random.Random, "seed", seed)
    replacements.attribute(random, "seed", seed_ambient)


def _replace_uuids(streams: Streams, replacements: Replacements) -> None:
    """`uuid1`, which C code makes up but for the host's number; `uuid4` asks `os.urandom`.

    That number is made up too, once a process, where the host has no network: a bit says so.
    """
    uuid = sys.modules["uuid"]
    original, host = uuid.uuid1, uuid.getnode
    made_up: list[int] = []

    def getnode() -> int:
        number: int = host()
        if not number & MADE_UP:
            return number
        if not made_up:
            drawn = streams.draw_for_program(6, sys._getframe(1))
            if drawn is None:
                return number
            made_up.append(int.from_bytes(drawn, "big") | MADE_UP)
        return made_up[0]

    def uuid1(node: int | None = None, clock_seq: int | None = None) -> Any:
        drawn = streams.draw(16, sys._getframe(1)) if node is clock_seq is None else None
        if drawn is None:
            return original(node, clock_seq)
        fields = uuid.UUID(bytes=drawn, version=1).fields
        return uuid.UUID(fields=(*fields[:5], uuid.getnode()))

    replacements.attribute(uuid, "uuid1", uuid1)
    replacements.attribute(uuid, "getnode", getnode)


def _replace_generator(streams: Streams, replacements: Replacements) -> None:
    """`seed` of every torch generator, and so `torch.seed()` and `torch.cuda.seed()`."""
    generator = sys.modules["torch"].Generator
    original = generator.seed

    def seed(self: Any) -> int:
        drawn = streams.draw(8, sys._getframe(1))
        if drawn is None:
            return int(original(self))
        number = int.from_bytes(drawn, "big") >> (64 - GENERATOR_BITS)
        self.manual_seed(number)
        return number

    replacements.method(generator, "seed", seed)


def judge(judgement: Judgement, facts: Facts) -> Verdict:
    """Name the lines that drew."""
    return Verdict.of(
        judgement,
        held="other random numbers of the operating system change nothing",
        broke="the program draws random numbers from the operating system, which hands out others in each run",
        evidence=evidence(
            facts.diverged or facts.survey.get(ID) or (), "draws from the operating system"
        ),
    )


def fix(_facts: Facts) -> Fix:
    """Give a seed to what has none."""
    return Fix(
        summary="Seed every generator that the program makes, and draw from it instead of from the operating system.",
        snippet="rng = np.random.default_rng(seed)  # never default_rng()\n"
        "shuffler = random.Random(seed)  # never Random(), SystemRandom(), seed()\n"
        "generator = torch.Generator().manual_seed(seed)  # never .seed()",
    )


_SEEDED = "Give {call} a seed: without one it asks the operating system."
_A_NUMBER = "Seed with a number, not with what {call} draws from the operating system."
_FIRST_RESET = (
    "Give the first reset() of an environment a seed; without one it asks the operating system."
)
REMEDIES = (
    Argument(
        calls=(
            *("numpy.random.default_rng", "numpy.random.RandomState", "numpy.random.SeedSequence"),
            *("numpy.random.PCG64", "numpy.random.PCG64DXSM", "numpy.random.MT19937"),
            *("numpy.random.Philox", "numpy.random.SFC64", "numpy.random.seed"),
            *("random.Random", "random.seed"),
        ),
        summary=_SEEDED,
    ),
    Instead(
        calls=("random.SystemRandom",),
        template="random.Random({seed})",
        arguments=0,
        summary="Draw from a generator that has a seed; SystemRandom takes none.",
    ),
    Instead(
        calls=("torch.seed",),
        template="torch.manual_seed({seed})",
        arguments=0,
        summary="Give PyTorch's generator a seed; {call}() takes one from the operating system.",
    ),
    Instead(
        calls=(
            *("os.urandom", "secrets.randbits", "secrets.randbelow", "secrets.token_bytes"),
            *("secrets.token_hex", "uuid.uuid4", "uuid.uuid1"),
        ),
        template="{seed}",
        arguments=None,
        within=("seed",),
        summary=_A_NUMBER,
    ),
    Instead(
        calls=(".seed",),
        template="{owner}.manual_seed({seed})",
        arguments=0,
        summary="Give the generator a seed; {call}() takes one from the operating system.",
    ),
    Argument(
        calls=(".reset",),
        keyword="seed",
        once=True,
        summary=_FIRST_RESET,
    ),
    SeedOnce(calls=(".reset",), template="{owner}.reset(seed={seed})", summary=_FIRST_RESET),
    SeedOnce(
        calls=(".sample",),
        template="{owner}.seed({seed})",
        owners=("space",),
        summary="Seed the space that {call}() draws from: the seed of the environment does not reach it.",
    ),
    Argument(
        calls=("albumentations.Compose",),
        keyword="seed",
        summary="Give the pipeline a seed; its transforms draw from a generator of its own.",
    ),
    Argument(
        calls=("optuna.create_study",),
        keyword="study_name",
        value='"study"',
        summary="Name the study: a name that {call}() draws decides what the Hyperband pruner prunes.",
    ),
)


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.RERUN,
    pinned=PINNED,
    levels=levels,
    apply=apply,
    judge=judge,
    reads=frozenset((reads.ENTROPY,)),
    lines=noted,
    fix=fix,
    remedies=REMEDIES,
    survey=logged(LOG),
)
