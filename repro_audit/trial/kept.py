"""Trials kept on disk, from which a later audit of the same program is answered.

They are found by what was asked: the first trial by the program, the machine, the environment and its setting; each
other one by its request, and by the first trial beside which it was made. Of what a trial read outside of the tree, all
must be as it was. Whatever is in doubt counts as not there: the trial is made anew.

Nothing is unpickled. `place` holds a directory an entry: what the trial left, and `entry.json`, with digests of that.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import xxhash

from repro_audit.experiment import RunStatus
from repro_audit.isolation.sandbox import Tree
from repro_audit.probe import inputs
from repro_audit.storage.border import dumps, loads
from repro_audit.storage.facts import Facts
from repro_audit.trial.program import PACKAGE, Identity, identity
from repro_audit.trial.request import FACTS, TrialRequest
from repro_audit.trial.runner import Ended, Job

MOST_BYTES = 4 << 30
"""The entries that were used last are kept, up to here."""
MOST_WRITTEN = 256 << 20
"""What a first trial may write into its tree and be kept."""
MARGIN_SECONDS = 2.0
"""A file that changed so shortly before the audit may have been read as it was before."""
_TRIAL, _TREE, _ENTRY = "trial", "tree", "entry.json"
_PLACES = ("tree", "temporary", "first_tree", "compiled", "directory", "kept")
"""Of a request: where the audit has its files, which `key` has in short, and that they are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is known of a trial beside the files that it left."""

    status: RunStatus
    seconds: float
    output: str
    exit: str
    lineage: str
    """Of the first trial beside which it was made."""
    instant: int
    """As the request has it."""
    files: dict[str, str] = field(default_factory=dict)
    """By the name of each file that the trial left: a digest of its content."""
    inputs: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """By the path of each file outside of the tree that the trial read: its `Identity`."""


def directory() -> Path:
    """Where the entries are of this user."""
    base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(base) / "repro-audit" / "trials"


class Kept:
    """The trials that are kept, to one audit.

    Args:
        place: the directory of all entries.
        name: the same for each audit of a target in a directory.
        look: says what trials hang on beside their requests; given a moment, nothing if that has changed since.
        goes_on: trials are taken from here; else the program is looked at only where one is to be kept.
    """

    def __init__(
        self,
        place: Path,
        name: str,
        look: Callable[[float], Mapping[str, str] | None],
        *,
        goes_on: bool,
    ) -> None:
        self.place = place
        self._latest = place / f"{name}.json"
        self._began = time.time() - MARGIN_SECONDS
        self._look = look
        self.goes_on = goes_on
        self._program = look(math.inf) if goes_on else None
        self.too_large = goes_on and self._program is None
        """The tree holds more files than are looked at, so that nothing is kept."""
        self.changed_before = self._changed() if goes_on else []
        """What is not as it was when trials of this program were kept last; nothing where none were."""
        self._asked: Counter[str] = Counter()
        self._lineage = ""
        self.taken = 0
        """Trials that were not made, as they were there."""

    def key(self, job: Job, *, first: bool) -> str:
        """Of a trial that is wanted, `first` where others are compared with it; wanted again it has another one."""
        if first and not self.goes_on:
            self._program = self._look(self._began)
        request = json.loads(dumps(job.request))
        for name in (*_PLACES, *(("instant",) if first else ())):
            del request[name]
        tree = job.request.tree
        # By the paths of these the program finds its temporary files, and its tree where that is a copy.
        places = [str(tree.base if tree.kind == "copy" else job.request.directory.parent)]
        asked = json.dumps(
            [
                *(request, places, tree.kind, job.environment, job.fresh, job.before_kernels),
                sorted((self._program or {}).items()) if first else self._lineage,
            ],
            sort_keys=True,
        )
        self._asked[asked] += 1
        return _digest(f"{self._asked[asked]} {asked}")

    def take(self, key: str, request: TrialRequest, *, first: bool) -> tuple[Ended, int] | None:
        """Put what a trial left in the place of one that is wanted; how it ended, and its instant."""
        place = self.place / key
        if not (place / _ENTRY).exists() or not (self._program if first else self._lineage):
            return None
        try:
            entry = _read(place)
            shutil.copytree(place / _TRIAL, request.directory, dirs_exist_ok=True)
            if (place / _TREE).exists():
                shutil.copytree(place / _TREE, request.tree.parts[0].upper, dirs_exist_ok=True)
            facts = Facts.load(request.directory / FACTS)
            os.utime(place)  # used last
        except (OSError, ValueError, TypeError, shutil.Error):
            shutil.rmtree(place, ignore_errors=True)
            shutil.rmtree(request.directory, ignore_errors=True)
            request.directory.mkdir()
            return None
        if first:
            self._lineage = entry.lineage
        self.taken += 1
        ended = Ended(
            status=entry.status,
            seconds=entry.seconds,
            output=entry.output,
            facts=facts,
            exit=entry.exit,
        )
        return ended, entry.instant

    def put(self, key: str, request: TrialRequest, ended: Ended, *, first: bool) -> None:
        """Keep a trial that has ended, unless something speaks against it."""
        if first:
            self._lineage = ""
        facts = ended.facts
        if facts is None or not self._may_keep(ended, first=first):
            return
        # What is in the tree is known by its content, and so is the tool, whatever byte code comes beside its text.
        own = {request.directory.parent.parent, request.tree.root, PACKAGE}
        # Of where Python looks for modules, the program's digest has the names.
        read = inputs.read(request.directory) - set(map(Path, sys.path))
        identities = {
            str(path): _identity(path)
            for path in read
            if own.isdisjoint((path, *path.parents)) and "__pycache__" not in path.parts
        }
        # What is not there any more, the program made for itself.
        known = {path: found for path, found in identities.items() if found is not None}
        if any(changed > self._began * 1e9 for *_, changed in known.values()):
            return
        lineage = secrets.token_hex(8) if first else self._lineage
        part = self.place / f"{key}.{secrets.token_hex(4)}"
        try:
            self.place.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.copytree(request.directory, part / _TRIAL)
            if first and facts.written:
                _copy_written(request.tree, facts.written, part / _TREE)
            facts.save(part / _TRIAL / FACTS)
            entry = Entry(
                status=ended.status,
                seconds=ended.seconds,
                output=ended.output,
                exit=ended.exit,
                lineage=lineage,
                instant=request.instant,
                files=_digests(part),
                inputs=known,
            )
            text = dumps(entry)
            (part / _ENTRY).write_text(f"{_digest(text)}\n{text}", encoding="utf-8")
            shutil.rmtree(self.place / key, ignore_errors=True)
            part.rename(self.place / key)
        except (OSError, shutil.Error):  # then it will be made again
            shutil.rmtree(part, ignore_errors=True)
            return
        if first:
            self._lineage = lineage
            with suppress(OSError):
                self._latest.write_text(json.dumps(self._program), encoding="utf-8")
        self._trim()

    def _may_keep(self, ended: Ended, *, first: bool) -> bool:
        """Whether a trial came to an end of its own, and the program is what it was when the audit began."""
        if ended.status not in {"ok", "no-steps", "crashed"} or not (first or self._lineage):
            return False
        return self._program is not None and self._look(math.inf) == self._program

    def _changed(self) -> list[str]:
        try:
            before = json.loads(self._latest.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        now = self._program or {}
        return [name for name in {**before, **now} if before.get(name) != now.get(name)]

    def _trim(self) -> None:
        """Delete the entries that were not used for longest, where all are too large together."""
        with suppress(OSError):
            places = list(self.place.iterdir())
            sizes = {each: _bytes_of(each) for each in places}
            total = sum(sizes.values())
            for place in sorted(places, key=lambda each: each.stat().st_mtime):
                if total > MOST_BYTES:
                    if place.is_dir():
                        shutil.rmtree(place, ignore_errors=True)
                    else:
                        place.unlink(missing_ok=True)
                    total -= sizes[place]


def _read(place: Path) -> Entry:
    """An entry that is whole, and whose trial's inputs are as they were.

    Raises:
        ValueError: it is not; or a TypeError, or an OSError.
    """
    digest, text = (place / _ENTRY).read_text(encoding="utf-8").split("\n", 1)
    entry = loads(Entry, text)
    if digest != _digest(text) or entry.files != _digests(place):
        raise ValueError(f"{place} is damaged")
    if any(_identity(Path(path)) != known for path, known in entry.inputs.items()):
        raise ValueError(f"{place} is of a program with other inputs")
    return entry


def _digest(text: str) -> str:
    return xxhash.xxh3_128_hexdigest(text.encode())


def _bytes_of(place: Path) -> int:
    files = (path for path in (place, *place.rglob("*")) if path.is_file())
    return sum(path.stat().st_size for path in files)


def _digests(place: Path) -> dict[str, str]:
    """Of all files of an entry but the one that holds these."""
    return {
        str(path.relative_to(place)): xxhash.xxh3_128_hexdigest(path.read_bytes())
        for path in place.rglob("*")
        if path.is_file() and path != place / _ENTRY
    }


def _identity(path: Path) -> Identity | None:
    """A file's, or a directory's; None where there is none any more."""
    try:
        return identity(path.stat())
    except OSError:
        return None


def _copy_written(tree: Tree, names: Iterable[str], place: Path) -> None:
    """Copy what a trial wrote into its tree.

    Raises:
        OSError: it deleted something too, or wrote too much to be kept, or something else than files.
    """
    if len(tree.parts) != 1:
        raise OSError(f"{tree.kind}: what was written is not in one place")
    upper, left = tree.parts[0].upper, MOST_WRITTEN
    for name in names:
        left -= (upper / name).stat().st_size
        if left < 0 or not (upper / name).is_file():
            raise OSError(f"{name} can not be kept")
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(upper / name, place / name, follow_symlinks=False)
