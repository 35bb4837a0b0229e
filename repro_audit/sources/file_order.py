"""The order in which a directory lists its files decides the result.

## What it does
The audit hands the program the entries of directories in sorted order (pinned), in reverse, and shuffled: from
`os.listdir`, `os.scandir`, `os.walk`, `os.fwalk`, `glob`, `Path.iterdir`, `Path.glob` and `Path.rglob`, and from
libraries that use them, such as torchvision's folders. Another result convicts it, and the report lists the lines
that asked for a listing. It breaks the promise `portable`, and is emulated. Directories of Python, of installed
packages, and below `/proc`, `/sys` and `/dev` are left as they are. *Same*: all three orders give the same. Not seen
are listings in C code, and by other programs, such as `ls` or `find`.

## Why it breaks reproducibility
A file system lists a directory in an order of its own: of creation, of hashes, of nothing in particular. Python hands
it on as it comes. It stays the same for as long as the directory does, so reruns agree; a copy of the data on
another disk, on another machine or out of an archive is listed in another order, and so are the samples, the
numbers of the classes, and what ends up in the test set.

## Example
Samples come in the order of a listing.

```python
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(seed):
    torch.manual_seed(seed)
    folder = Path("samples")
    folder.mkdir(exist_ok=True)
    for number in range(16):
        (folder / f"{number}.txt").write_text(str(number / 16))
    x = torch.tensor(
        [[float(path.read_text())] for path in folder.iterdir()]
    )
    return nn.Linear(1, 1), DataLoader(
        TensorDataset(x, 2 * x), batch_size=2
    )
```

## Use instead
Sort what was listed.

```python
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(seed):
    torch.manual_seed(seed)
    folder = Path("samples")
    folder.mkdir(exist_ok=True)
    for number in range(16):
        (folder / f"{number}.txt").write_text(str(number / 16))
    x = torch.tensor(
        [[float(path.read_text())] for path in sorted(folder.iterdir())]
    )
    return nn.Linear(1, 1), DataLoader(
        TensorDataset(x, 2 * x), batch_size=2
    )
```

## References
- Python: `os.listdir`, "The list is in arbitrary order": <https://docs.python.org/3/library/os.html#os.listdir>
- Python: `glob`, "whether or not the results are sorted depends on the file system":
  <https://docs.python.org/3/library/glob.html#glob.glob>
- A study's results that changed with the order of `glob`: <https://doi.org/10.1021/acs.orglett.9b03216>
"""

from __future__ import annotations

import glob
import hashlib
import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeAlias

from repro_audit.context import TrialContext
from repro_audit.experiment import Judgement
from repro_audit.fixes.remedies import Sort
from repro_audit.probe.files import is_users
from repro_audit.replacements import Replacements
from repro_audit.source import Fix, Levels, RunPin, Scope, Source, Verdict
from repro_audit.sources._program import Lines, behind, evidence, logged, noted
from repro_audit.storage import reads
from repro_audit.storage.facts import Facts

ID = "file-order"
LOG = "listings.jsonl"
PINNED, REVERSED, SHUFFLED = "sorted", "reversed", "shuffled"

_OF_THE_SYSTEM = ("/proc/", "/sys/", "/dev/")

Entry: TypeAlias = Any
"""A name as text or bytes, or an `os.DirEntry`."""


class Entries:
    """Stands in for what `os.scandir` returns."""

    def __init__(self, entries: list[Entry]) -> None:
        self._left = iter(entries)

    def __iter__(self) -> Entries:
        return self

    def __next__(self) -> Entry:
        return next(self._left)

    def __enter__(self) -> Entries:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nothing more comes, as with the original."""
        self._left = iter(())


def ordered(names: list[Entry], level: str) -> list[Entry]:
    """Names, or entries that have one, in the order of a level: the same on any file system."""

    def name(entry: Entry) -> bytes:
        return os.fsencode(entry.name if isinstance(entry, os.DirEntry) else entry)

    def drawn(entry: Entry) -> bytes:
        return hashlib.sha256(name(entry)).digest()

    return sorted(names, key=drawn if level == SHUFFLED else name, reverse=level == REVERSED)


def levels(facts: Facts) -> Levels | str:
    """The other orders, where the program asks for a listing."""
    if not facts.survey.get(ID):
        return facts.seen("no directory with several entries was seen to be listed")
    return Levels(varied=(REVERSED, SHUFFLED))


@contextmanager
def apply(level: str, trial: TrialContext) -> Iterator[None]:
    """List directories in the level's order, wherever Python code looks `listdir` and `scandir` up."""
    lines = Lines(trial.directory / LOG)
    listdir, scandir = os.listdir, os.scandir

    def listed(path: Any = ".") -> list[Entry]:
        return put_in_order(path, listdir(path))

    def scanned(path: Any = ".") -> Any:
        return Entries(put_in_order(path, list(scandir(path)))) if _counts(path) else scandir(path)

    def put_in_order(path: Any, entries: list[Entry]) -> list[Entry]:
        if len(entries) < 2 or not _counts(path):  # noqa: PLR2004 - one entry has one order
            return entries
        users, importing = behind(sys._getframe(2))
        if not importing:
            lines.note(users)
        return ordered(entries, level)

    with Replacements() as replacements:
        for owner in _who_lists():
            for name, was, new in (("listdir", listdir, listed), ("scandir", scandir, scanned)):
                _replace(owner, name, was, new, replacements)
        os.supports_fd.update((listed, scanned))  # `shutil` looks there
        replacements.callback(os.supports_fd.difference_update, (listed, scanned))
        yield


def _who_lists() -> list[Any]:
    """Who looks the functions up: by version, `pathlib` and `glob` keep them in classes of their own."""
    modules = (os, glob, pathlib)
    classes = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__.startswith(("glob", "pathlib"))
    }
    return [*modules, *classes]


def _replace(
    owner: Any, name: str, original: Any, new: Callable[..., Any], replacements: Replacements
) -> None:
    held = vars(owner).get(name)
    if getattr(held, "__func__", held) is original:  # in a class it may be a staticmethod
        value = staticmethod(new) if isinstance(owner, type) else new
        replacements.attribute(owner, name, value)


def _counts(path: Any) -> bool:
    """Whether a directory may belong to the program or its data."""
    if isinstance(path, int):  # of `os.fwalk`
        return True
    try:
        directory = os.path.realpath(os.fsdecode("." if path is None else path)) + os.sep
    except (TypeError, ValueError):  # the original has the words for it
        return False
    return is_users(directory) and not directory.startswith(_OF_THE_SYSTEM)


def judge(judgement: Judgement, facts: Facts) -> Verdict:
    """Name the lines that listed."""
    return Verdict.of(
        judgement,
        held="other orders of files in their directories change nothing",
        broke="the result follows the order in which directories list their files; another disk or machine has "
        "another one",
        evidence=evidence(facts.survey.get(ID) or (), "lists a directory"),
    )


def fix(_facts: Facts) -> Fix:
    """Sort."""
    return Fix(
        summary="Sort what a listing gives before it decides anything.",
        snippet='paths = sorted(Path("data").glob("*.png"))  # not glob() as it comes\n'
        'names = sorted(os.listdir("data"))\n'
        'for path, folders, files in os.walk("data"):\n'
        "    folders.sort()  # in place: walk goes on in this order\n"
        "    files.sort()",
    )


_ANY_ORDER = (
    "Sort what a listing gives before it decides anything: a file system has an order of its own."
)
REMEDIES = (
    Sort(
        calls=(
            *("os.listdir", "glob.glob", "glob.iglob"),
            *(".iterdir", ".glob", ".rglob"),
        ),
        summary=_ANY_ORDER,
    ),
    Sort(calls=("os.scandir",), key="lambda entry: entry.name", summary=_ANY_ORDER),
)


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.PORTABLE,
    pinned=PINNED,
    levels=levels,
    apply=apply,
    run_pin=RunPin(words="sort what os.listdir, os.scandir, glob and Path.iterdir give"),
    judge=judge,
    reads=frozenset((reads.LISTING,)),
    lines=noted,
    fix=fix,
    remedies=REMEDIES,
    survey=logged(LOG),
)
