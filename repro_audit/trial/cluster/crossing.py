"""A trial on its way to a node and back: as text and files, in which paths are those of the tree at home."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from repro_audit.storage.border import dumps
from repro_audit.storage.facts import Facts
from repro_audit.trial.driver.checkpoint import STATE
from repro_audit.trial.request import FACTS
from repro_audit.trial.runner import Ended, Environment, Job

if TYPE_CHECKING:
    from collections.abc import Mapping

    from repro_audit.storage.facts import Failure

NOT_SENT = (
    "the file is here, but not on the node: Ray sends nothing that .gitignore or .rayignore names"
)
HOW_TO_SEND = (
    "have RAY_RUNTIME_ENV_IGNORE_GITIGNORE=1 in the environment of the audit, by which Ray sends what .gitignore names "
    "too; or have the data on a file system that all nodes share, and name it by its absolute path"
)
OUTSIDE = "it may be here, but nodes have only what lies in {root}, and their own packages"
HOW_TO_REACH = (
    "start the audit in a directory that holds it too; have data on a file system that all nodes share, named by an "
    "absolute path, and packages installed on the nodes"
)
NESTED = 2
"""Keys of ops are JSON in a string of a JSON text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A job on its way to a node."""

    request: str
    """As JSON; its directory is only its name."""
    environment: Environment
    fresh: bool
    before_kernels: bool
    fed: dict[str, bytes] = field(default_factory=dict)
    """Values that another trial saved, which this one is fed with, by file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A trial on its way back."""

    ended: Ended
    """Without its facts, which are among the files."""
    written: tuple[str, ...]
    """As in its facts."""
    files: dict[str, bytes]
    """What it left in its directory."""


def gone(how: str) -> Done:
    """What comes back of a trial that did not run."""
    ended = Ended(status="crashed", seconds=0.0, output="", facts=None, exit=how)
    return Done(ended=ended, written=(), files={})


def sent(job: Job) -> Sent:
    """A job as a node gets it."""
    request = job.request
    fed_by = request.watch.fed_by
    return Sent(
        request=dumps(replace(request, directory=Path(request.directory.name))),
        environment=job.environment,
        fresh=job.fresh,
        before_kernels=job.before_kernels,
        fed=read(Path(fed_by)) if fed_by else {},
    )


def received(job: Job, result: Done) -> Ended:
    """How a trial ended, its files in its directory."""
    directory = job.request.directory
    write(result.files, directory)
    if not (directory / FACTS).exists():
        return result.ended
    facts = replace(Facts.load(directory / FACTS), written=result.written)
    failure = facts.failure and _told(facts.failure, job.request.tree.root)
    return replace(result.ended, facts=replace(facts, failure=failure))


def _told(failure: Failure, root: Path) -> Failure:
    """A failure with the advice for what a node lacks, since it was not sent or lies outside of the tree."""
    outside = failure.what.startswith("ModuleNotFoundError")
    if failure.missing and Path(failure.missing).exists():
        if Path(failure.missing).resolve().is_relative_to(root):
            return replace(failure, why=NOT_SENT, next_step=HOW_TO_SEND)
        outside = True
    if not outside or failure.why:
        return failure
    return replace(failure, why=OUTSIDE.format(root=root), next_step=HOW_TO_REACH)


def renamed(files: Mapping[str, bytes], before: str, after: str) -> dict[str, bytes]:
    """Files with the paths below one directory as paths below another in those that are JSON."""
    return {
        name: renamed_text(content.decode(), before, after).encode()
        if name.endswith((".json", ".jsonl"))
        else content
        for name, content in files.items()
    }


def renamed_text(text: str, before: str, after: str) -> str:
    """A JSON text with paths renamed, those too in JSON that its strings hold."""
    names: dict[str, str] = {}
    for _ in range(NESTED):
        before, after = (json.dumps(path)[1:-1] for path in (before, after))
        names.setdefault(before, after)
    found = "|".join(map(re.escape, names))
    return re.sub(rf"({found})(?![\w.-])", lambda match: names[match[0]], text)


def read(directory: Path) -> dict[str, bytes]:
    """The files below a directory, by their paths in it, but for checkpoints."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.is_symlink() and path.name != STATE
    }


def write(files: Mapping[str, bytes], directory: Path) -> None:
    """Write what `read` returned."""
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
