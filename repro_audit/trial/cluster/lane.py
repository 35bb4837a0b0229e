"""What runs trials on one node, in a process of its own: the runner and the trees that an audit has at home."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from repro_audit.isolation.room import no_room
from repro_audit.isolation.sandbox import plan_isolation
from repro_audit.isolation.scratch import delete_all
from repro_audit.storage.border import loads
from repro_audit.trial.cluster.nodes import is_of_the_machine
from repro_audit.trial.driver.checkpoint import STATE
from repro_audit.trial.request import TrialRequest
from repro_audit.trial.runner import Ended, Environment, Job, Runner
from repro_audit.trial.site import Site

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from repro_audit.isolation.tree import Kind

_DEVICES = "CUDA_VISIBLE_DEVICES"
"""By this Ray tells a process which GPUs are its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What all lanes of an audit are told."""

    audit: str
    """A name that no other audit has."""
    root: str
    """The tree's root where the audit was started."""
    environment: dict[str, str]
    """Of the process that was started there."""
    deciding: tuple[str, ...]
    """As `Site` takes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What a lane says of itself."""

    isolation: Kind
    """`Isolation.kind`."""
    reason: str
    """`Isolation.reason`."""


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


class Lane:
    """Runs trials on the node that it is made on.

    The working directory is the tree that was sent. Files of a trial name it as it is called at home.
    """

    def __init__(self, plan: Plan) -> None:
        adopt(plan.environment)
        self._plan = plan
        self._isolation = plan_isolation(Path.cwd())
        # By these paths all trials find their directories for temporary files, whichever lane they run in.
        self._common = Path(tempfile.gettempdir()) / f"repro_audit_{plan.audit}"
        self._site = Site(self._isolation, plan.deciding, common=self._common)
        temporary = self._isolation.scratch / "tmp"
        temporary.mkdir()
        self._runner = Runner(side_by_side=1, timeout=0.0, temporary=temporary)

    def opened(self) -> Opened:
        """What is known once it is there."""
        return Opened(isolation=self._isolation.kind, reason=self._isolation.reason)

    def warm(self, environments: Sequence[Environment], modules: Sequence[str]) -> None:
        """As `Runner.warm` and `Runner.preload`."""
        self._runner.warm(environments)
        if modules:
            self._runner.preload(modules)

    def run(self, sent: Sequence[Sent], *, side_by_side: int, timeout: float) -> list[Done]:
        """Run trials, so many at a time; in the order in which they were sent."""
        self._runner.side_by_side, self._runner.timeout = side_by_side, timeout
        jobs = [self._placed(each) for each in sent]
        done: dict[int, Done] = {}

        def at_end(index: int, ended: Ended) -> None:
            request = jobs[index].request
            ended = self._site.clear(request, ended)
            done[index] = self._packed(request, ended)
            shutil.rmtree(request.directory, ignore_errors=True)

        try:
            self._runner.run(jobs, at_end)
        except OSError as error:
            raise no_room(error, self._isolation.scratch) or error from None
        return [done[index] for index in range(len(jobs))]

    def close(self) -> None:
        """End what runs, and leave nothing on the node."""
        self._runner.__exit__()
        self._isolation.cleanup()
        delete_all()
        shutil.rmtree(self._common, ignore_errors=True)

    def _placed(self, sent: Sent) -> Job:
        request = loads(TrialRequest, renamed(sent.request, self._plan.root, str(Path.cwd())))
        tree = replace(request.tree, kind=self._isolation.kind, root=self._isolation.root)
        request = self._site.place(replace(request, tree=tree))
        if sent.fed:
            place = request.directory.parent / f"{request.directory.name}-fed"
            write(sent.fed, place)
            request = replace(request, watch=replace(request.watch, fed_by=str(place)))
        return Job(
            request=request,
            environment=sent.environment,
            fresh=sent.fresh,
            before_kernels=sent.before_kernels,
        )

    def _packed(self, request: TrialRequest, ended: Ended) -> Done:
        here = str(request.tree.map(request.tree.root))
        home = self._plan.root
        return Done(
            ended=replace(
                ended,
                facts=None,
                output=ended.output.replace(here, home),
                stacks=ended.stacks.replace(here, home),
            ),
            written=ended.facts.written if ended.facts else (),
            files={
                name: renamed(content.decode(), here, home).encode()
                if name.endswith((".json", ".jsonl"))
                else content
                for name, content in read(request.directory).items()
            },
        )


def adopt(environment: Mapping[str, str]) -> None:
    """Have the variables that the audit was started with, and of this node those that are its own.

    Ray's workers set some, such as OMP_NUM_THREADS, by which a training would compute otherwise; they start with those
    of the node's own Ray process.
    """
    with suppress(OSError, KeyError, ValueError):
        raylet = Path(f"/proc/{int(os.environ['RAY_RAYLET_PID'])}/environ").read_bytes()
        pairs = (entry.partition("=") for entry in os.fsdecode(raylet).split("\0") if "=" in entry)
        own = {name: value for name, _, value in pairs if not name.startswith("RAY_")}
        told = {_DEVICES: os.environ[_DEVICES]} if _DEVICES in os.environ else {}
        os.environ.clear()
        os.environ.update(own | told)
    os.environ.update(
        {name: value for name, value in environment.items() if not is_of_the_machine(name)}
    )


def renamed(text: str, before: str, after: str) -> str:
    """A JSON text with the paths below one directory as paths below another."""
    before, after = (json.dumps(path)[1:-1] for path in (before, after))
    return re.sub(rf"{re.escape(before)}(?![\w.-])", lambda _: after, text)


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
