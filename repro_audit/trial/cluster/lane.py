"""What runs trials on one node, in a process of its own: the runner and the trees that an audit has at home."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from repro_audit.isolation.room import no_room
from repro_audit.isolation.sandbox import plan_isolation, sweep_all
from repro_audit.isolation.scratch import PREFIX, delete_all, share_scratch
from repro_audit.storage.border import loads
from repro_audit.trial.cluster.crossing import Done, Sent, read, renamed, renamed_text, write
from repro_audit.trial.cluster.nodes import is_of_the_machine
from repro_audit.trial.request import TrialRequest
from repro_audit.trial.runner import Ended, Environment, Job, Runner
from repro_audit.trial.site import Site

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from repro_audit.isolation.tree import Kind

POLL_SECONDS = 0.05
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


class Lane:
    """Runs trials on the node that it is made on.

    The working directory is the tree that was sent. Files of a trial name it as it is called at home.
    """

    def __init__(self, plan: Plan) -> None:
        adopt(plan.environment)
        self._plan = plan
        self._isolation = plan_isolation(Path.cwd())
        common = _common(plan.audit)
        self._lock = share_scratch(common)
        self._site = Site(self._isolation, plan.deciding, common=common)
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
        os.close(self._lock)
        sweep_all(Path.cwd())

    def _placed(self, sent: Sent) -> Job:
        home, here = self._plan.root, str(Path.cwd())
        request = loads(TrialRequest, renamed_text(sent.request, home, here))
        tree = replace(request.tree, kind=self._isolation.kind, root=self._isolation.root)
        request = self._site.place(replace(request, tree=tree))
        if sent.fed:
            place = request.directory.parent / f"{request.directory.name}-fed"
            write(renamed(sent.fed, home, here), place)
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
            files=renamed(read(request.directory), here, home),
        )


def clear(audit: str, *, seconds: float) -> None:
    """Delete what lanes that were killed left on this node, once they are gone; wait so long for that."""
    until = time.monotonic() + seconds
    while _common(audit).exists() and time.monotonic() < until:
        sweep_all(Path.cwd())
        time.sleep(POLL_SECONDS)
    sweep_all(Path.cwd())


def _common(audit: str) -> Path:
    """Below it are the paths by which all trials find their directories for temporary files, in whichever lane."""
    return Path(tempfile.gettempdir()) / f"{PREFIX}{audit}"


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
