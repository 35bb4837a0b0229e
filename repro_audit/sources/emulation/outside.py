"""What the program is told from outside: kept by one trial, told again by others, so that it can be pinned.

Nothing is kept from the program: commands run, and connections are made. Only where two runs with everything pinned
were told different things, those are put in place of what is told anew.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from repro_audit.context import TrialContext
from repro_audit.context.numbering import position
from repro_audit.storage.border import append, entries
from repro_audit.storage.facts import Json

OWN, KEPT, LOG = "answers", "kept-answers", "answers.jsonl"
MOST_BYTES = 1 << 20
"""Of an answer; of a longer one only the digest is kept, so it can not be told again."""
MOST_ANSWERS = 2_000
"""Of a process; what comes later is not looked at."""
MOST_KEPT = 64 << 20
"""Bytes of a process's answers in all: data sets lie outside of the tree too. Of more only digests are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One of the program's, by what stays the same from run to run."""

    name: str
    """Of the file in which the answer is kept."""
    file: str
    line: int
    what: str
    """What the line does, in words: it `runs date`."""
    asked: str
    """All that was asked, such as a command's arguments: where it is other, so may be the answer."""


class Answers:
    """The answers that a trial was given, and those that it is to give again."""

    def __init__(self, trial: TrialContext, *, again: bool) -> None:
        self._own = (trial.directory / OWN).resolve()
        self._log = str((trial.directory / LOG).resolve())
        # The first half of a training that is cut in two has a directory within the trial's.
        places = (above / KEPT for above in trial.directory.resolve().parents[:2])
        self._kept = next((place for place in places if place.is_dir()), None)
        self._again = again
        self._roots = tuple(f"{root}{os.sep}" for root in (trial.root, trial.elsewhere) if root)
        self._processes = trial.processes
        self._counts: dict[tuple[str, int, str], itertools.count[int]] = {}
        self._left = MOST_ANSWERS
        self._room = MOST_KEPT

    def restart(self) -> None:
        """Begin anew, for the next run in this process."""
        self._counts.clear()

    def seen(self) -> Json:
        """How often each line has asked."""
        return [[*key, position(count)] for key, count in self._counts.items()]

    def go_on(self, seen: Json) -> None:
        """Let each line ask what comes after that."""
        for file, line, kind, count in seen:
            self._counts[file, line, kind] = itertools.count(count)

    def question(self, kind: str, frame: FrameType, what: str, asked: str) -> Question:
        """What a line asks now; the same in each run, as often as it has asked before."""
        file = frame.f_code.co_filename
        for root in self._roots:
            file = file.removeprefix(root)
        place = (file, frame.f_lineno, kind)
        number = next(self._counts.setdefault(place, itertools.count()))
        name = hashlib.sha256(repr((place, number, self._processes.own())).encode()).hexdigest()
        return Question(name=name[:32], file=file, line=frame.f_lineno, what=what, asked=asked)

    def wants(self, question: Question) -> bool:
        """Whether an answer is looked at: once it is known what changes from run to run, only that is."""
        known = self._kept is None or (self._kept / question.name).exists()
        return known and self._left > 0

    def kept(self, question: Question) -> bytes | None:
        """What is to be told, where pinned runs were told different things."""
        if not self._again or self._kept is None:
            return None
        found = _read(self._kept / question.name)
        if found is None or found[0]["asked"] != question.asked or not found[0]["whole"]:
            return None
        return found[1]

    def told(self, question: Question, answer: bytes, *, whole: bool = True) -> None:
        """Keep what was really answered; not `whole` where the answer itself is not at hand, but a digest of it."""
        if not self.wants(question):
            return
        self._left -= 1
        digest = hashlib.sha256(answer).hexdigest()
        whole = whole and len(answer) <= min(MOST_BYTES, self._room)
        kept = _read(self._kept / question.name) if self._kept is not None else None
        entry = {
            "name": question.name,
            "place": [question.file, question.line],
            "what": question.what,
            "digest": digest,
            "whole": whole,
            "other": kept is not None and kept[0]["digest"] != digest,
        }
        head = {"asked": question.asked, "digest": digest, "whole": whole}
        with suppress(OSError):
            self._own.mkdir(exist_ok=True)
            body = answer if whole and self._kept is None else b""
            self._room -= len(body)
            (self._own / question.name).write_bytes(json.dumps(head).encode() + b"\n" + body)
            append(self._log, entry)


def _read(path: Path) -> tuple[dict[str, Any], bytes] | None:
    with suppress(OSError, ValueError):
        head, _, body = path.read_bytes().partition(b"\n")
        return json.loads(head), body
    return None


def read_answers(trial: Path) -> list[dict[str, Any]]:
    """What the processes of a trial were told."""
    return sorted(entries(trial / LOG, dict), key=lambda entry: (entry["place"], entry["name"]))


def changed(ours: Json, theirs: Json) -> list[dict[str, Any]]:
    """Those of our answers that another run with everything pinned was told otherwise."""
    digests = {entry["name"]: entry["digest"] for entry in theirs or ()}
    return [
        entry
        for entry in ours or ()
        if digests.get(entry["name"], entry["digest"]) != entry["digest"]
    ]


def keep(trial: Path, names: Iterable[str]) -> None:
    """Let the trials that come tell again what a trial was told."""
    kept = trial.parent / KEPT
    kept.mkdir(exist_ok=True)
    for name in names:
        with suppress(OSError):
            (kept / name).write_bytes((trial / OWN / name).read_bytes())
