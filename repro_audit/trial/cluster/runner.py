"""Runs the trials of one audit on the nodes of a cluster, as `trial.runner.Runner` does on this machine."""

from __future__ import annotations

import math
import shutil
import time
from collections import Counter, deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro_audit.errors import UsageError
from repro_audit.source import listed
from repro_audit.storage.border import dumps
from repro_audit.storage.facts import Facts
from repro_audit.storage.trace import Trace
from repro_audit.trial.cluster.connection import LostError
from repro_audit.trial.cluster.lane import Done, Sent, read, write
from repro_audit.trial.cluster.nodes import in_words
from repro_audit.trial.request import FACTS
from repro_audit.trial.runner import UNTESTED, Ended, Environment, Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from repro_audit.trial.cluster.connection import Cluster
    from repro_audit.trial.cluster.lane import Opened, Plan
    from repro_audit.trial.cluster.nodes import Node

ATTEMPTS = 3
"""Times that a trial's node may be lost before it counts as the trial's doing."""
POLL_SECONDS = 0.5
CLOSE_SECONDS = 30.0

GONE = Done(
    ended=Ended(
        status="crashed",
        seconds=0.0,
        output="",
        facts=None,
        exit=f"was lost with its node, {ATTEMPTS} times",
    ),
    written=(),
    files={},
)
Numbered = tuple[int, Job]


@dataclass(slots=True, eq=False)
class Open:
    """A lane that is there, and what it is doing."""

    node: Node
    machine: str
    """The kind of its node, in words."""
    handle: Any
    gpus: int
    call: Any = None
    """None while it is idle."""
    jobs: list[Numbered] = field(default_factory=list)


class ClusterRunner:
    """Runs jobs on all nodes that compute as the first trial's does, up to `side_by_side` at once on each.

    Args:
        cluster: where.
        plan: what each lane is told.
        side_by_side: trials at the same time in a lane; as many as make sense where None.
        timeout: seconds that a trial may take.
        progress: told `(directory name, setting or None at its end)` of each trial.
        planned: told how many more trials are to run.

    Raises:
        UsageError: no node can run trials.
    """

    def __init__(
        self,
        cluster: Cluster,
        plan: Plan,
        *,
        side_by_side: int | None,
        timeout: float,
        progress: Callable[[str, dict[str, str] | None], None] = lambda *_: None,
        planned: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._cluster = cluster
        self._plan = plan
        self.timeout = timeout
        self.progress = progress
        self.planned = planned
        self.until: float | None = None
        """As `Runner.until`."""
        self._wanted: list[Environment] = []
        self._modules: tuple[str, ...] = ()
        self._first: Job | None = None
        """The first trial's."""
        self._digest: str | None = None
        """Of the first trial, once others are compared with it."""
        self._one_by_one = False
        self._lost: list[str] = []
        self._unused: dict[str, str] = {}
        """Why a node runs no trials, by its id."""
        self._lanes: list[Open] = []
        found = cluster.nodes()
        kinds = cluster.kinds(found, plan.environment)
        self._machines = in_words(kinds)
        """By the id of each node: its kind, in words."""
        self._nodes = [node for node in found if node.id in kinds]
        many = Counter(self._machines[node.id] for node in self._nodes)
        # Where there are GPUs, the program may use them; else where most trials can run side by side.
        self._nodes.sort(key=lambda node: (-min(node.gpus, 1), -many[self._machines[node.id]]))
        if not self._nodes:
            raise UsageError(
                "No node of the Ray cluster can run trials.",
                where="--on",
                why="none has a CPU to spare, or none answers",
                next_step="see: ray status",
            )
        first = self._nodes[0]
        self._home = self._machines[first.id]
        self.side_by_side = side_by_side or min(2, first.cpus)
        lane = self._open(first, gpus=min(first.gpus, 1))
        self._lanes.append(lane)
        self.opened: Opened = cluster.result(cluster.call(lane.handle, "opened"))

    def __enter__(self) -> ClusterRunner:
        return self

    def __exit__(self, *_: object) -> None:
        for lane in self._lanes:
            self._close(lane)

    @property
    def spent(self) -> bool:
        """As `Runner.spent`."""
        return self.until is not None and time.monotonic() > self.until

    @property
    def notes(self) -> tuple[str, ...]:
        """Where trials ran, and what was lost."""
        used = Counter(lane.machine for lane in self._lanes)
        told = [f"{count} x {machine}" for machine, count in used.items()]
        lost = f"lost, and its trials made again elsewhere: {listed(self._lost)}"
        return (
            f"trials ran on a Ray cluster: {listed(told)}",
            *([lost] if self._lost else []),
            *self._unused.values(),
        )

    def warm(self, environments: Iterable[Environment]) -> None:
        """As `Runner.warm`, in every lane."""
        self._wanted.extend(environments)
        for lane in self._lanes:
            self._cluster.call(lane.handle, "warm", self._wanted, self._modules)

    def preload(self, modules: Sequence[str]) -> None:
        """As `Runner.preload`, in every lane."""
        self._modules = tuple(modules)
        for lane in self._lanes:
            self._cluster.call(lane.handle, "warm", (), self._modules)

    @contextmanager
    def one_by_one(self) -> Iterator[None]:
        """As `Runner.one_by_one`, and on one node."""
        self._one_by_one = True
        try:
            yield
        finally:
            self._one_by_one = False

    def spread(self, digest: str, *, uses_gpu: bool) -> tuple[str, ...]:
        """Have trials run on every node that repeats the first one; the kinds of machine there are, its own first.

        Args:
            digest: of the first trial.
            uses_gpu: it used one, so that each lane has one to itself.
        """
        self._digest = digest
        if not uses_gpu:
            for lane in [lane for lane in self._lanes if lane.gpus]:
                self._lanes.remove(lane)
                self._close(lane)
        taken = Counter(lane.node.id for lane in self._lanes)
        opening = [
            self._open(node, gpus=int(uses_gpu))
            for node in self._nodes
            if self._machines[node.id] == self._home
            for _ in range((node.gpus if uses_gpu else 1) - taken[node.id])
        ]
        for lane in opening:
            self._repeat_first(lane)
        self._lanes += [lane for lane in opening if self._agrees(lane)]
        machines = dict.fromkeys(self._machines[node.id] for node in self._nodes)
        return (self._home, *(each for each in machines if each != self._home))

    def run(
        self, jobs: Sequence[Job], done: Callable[[int, Ended], None] = lambda *_: None
    ) -> list[Ended]:
        """As `Runner.run`; a trial whose node is lost is made again on another one.

        Raises:
            UsageError: no node is left for one.
        """
        self.planned(len(jobs))
        waiting = deque(enumerate(jobs))
        ended: dict[int, Ended] = {}
        attempts: Counter[int] = Counter()
        while len(ended) < len(jobs):
            if self.spent:
                ended |= {number: UNTESTED for number, _ in waiting}
                waiting.clear()
            self._submit(waiting)
            for lane in self._answered():
                numbered, lane.jobs = lane.jobs, []
                try:
                    results = self._cluster.result(lane.call)
                except LostError:
                    self._lose(lane)
                    attempts.update(number for number, _ in numbered)
                    waiting.extendleft(
                        each for each in reversed(numbered) if attempts[each[0]] < ATTEMPTS
                    )
                    numbered = [each for each in numbered if attempts[each[0]] >= ATTEMPTS]
                    results = [GONE] * len(numbered)
                lane.call = None
                for (number, job), result in zip(numbered, results, strict=True):
                    ended[number] = _received(job, result)
                    self.progress(job.request.directory.name, None)
                    done(number, ended[number])
        return [ended[number] for number in range(len(jobs))]

    # Handing out

    def _submit(self, waiting: deque[Numbered]) -> None:
        """Give the lanes that are idle what they may run, to each an equal share."""
        for machine in dict.fromkeys(self._machine(job) for _, job in waiting):
            if not any(lane.machine == machine for lane in self._lanes):
                self._lanes.append(self._replacement(machine))
        idle = [lane for lane in self._lanes if lane.call is None]
        for place, lane in enumerate(idle):
            fitting = [each for each in waiting if self._may_run(lane, each[1])]
            others = sum(each.machine == lane.machine for each in idle[place:])
            most = 1 if self._one_by_one else self.side_by_side
            chosen = fitting[: min(most, math.ceil(len(fitting) / others))]
            for each in chosen:
                waiting.remove(each)
                self.progress(each[1].request.directory.name, each[1].request.setting)
            if chosen:
                self._begin(lane, chosen)

    def _machine(self, job: Job) -> str:
        return job.machine or self._home

    def _may_run(self, lane: Open, job: Job) -> bool:
        """Whether a lane is of the kind that a job asks for; if its outcome hangs on the load, only the first is."""
        alike = [each for each in self._lanes if each.machine == self._machine(job)]
        if job.hangs_on_load or self._one_by_one:
            alike = alike[:1]
        return lane in alike

    def _begin(self, lane: Open, jobs: list[Numbered]) -> None:
        for _, job in jobs:
            if job.request.first:
                self._first = job
        lane.jobs = jobs
        lane.call = self._cluster.call(
            lane.handle,
            "run",
            [_sent(job) for _, job in jobs],
            side_by_side=self.side_by_side,
            timeout=self.timeout,
        )

    def _answered(self) -> list[Open]:
        """The lanes whose trials have ended, or that are lost, after waiting a while for one."""
        busy = {lane.call: lane for lane in self._lanes if lane.call is not None}
        return [busy[call] for call in self._cluster.ready(list(busy), seconds=POLL_SECONDS)]

    # Lanes

    def _open(self, node: Node, *, gpus: int) -> Open:
        handle = self._cluster.open(node, self._plan, cpus=self.side_by_side, gpus=gpus)
        self._cluster.call(handle, "warm", self._wanted, self._modules)
        return Open(node=node, machine=self._machines[node.id], handle=handle, gpus=gpus)

    def _close(self, lane: Open) -> None:
        if lane.call is None:
            with suppress(LostError):
                closing = self._cluster.call(lane.handle, "close")
                self._cluster.result(closing, seconds=CLOSE_SECONDS)
        self._cluster.end(lane.handle)

    def _lose(self, lane: Open) -> None:
        self._lanes.remove(lane)
        self._lost.append(lane.node.name)
        self._cluster.end(lane.handle)

    def _replacement(self, machine: str) -> Open:
        """A lane of a kind of which there is none, or none any more.

        Raises:
            UsageError: there is no node for it.
        """
        gpus = max((lane.gpus for lane in self._lanes), default=0)
        for node in self._cluster.nodes():
            if self._machines.get(node.id) != machine or node.id in self._unused:
                continue
            lane = self._open(node, gpus=min(gpus, node.gpus))
            if machine != self._home or self._digest is None:
                return lane
            self._repeat_first(lane)
            if self._agrees(lane):
                return lane
        raise UsageError(
            f"No node of the Ray cluster is left that is like this: {machine}",
            where="--on",
            why=f"lost: {listed(self._lost)}" if self._lost else "none answers",
            next_step="see: ray status; then run the audit again",
        )

    def _repeat_first(self, lane: Open) -> None:
        """Have a lane make the first trial too: so it shows that it can, and has the tree that others go on from."""
        if self._first is not None:
            self._begin(lane, [(0, self._first)])

    def _agrees(self, lane: Open) -> bool:
        """Whether a lane has repeated the first trial; one that has not is closed."""
        call, lane.call = lane.call, None
        try:
            (result,) = self._cluster.result(call, seconds=None)
        except LostError:
            self._cluster.end(lane.handle)
            self._lost.append(lane.node.name)
            return False
        place = Path(f"{self._first.request.directory}-repeated") if self._first else Path()
        write(result.files, place)
        facts = Facts.load(place / FACTS) if (place / FACTS).exists() else Facts()
        digest = Trace.open(place / "trace").outcome_digest() if facts.steps else None
        shutil.rmtree(place)
        if result.ended.status == "ok" and digest == self._digest:
            return True
        if result.ended.status == "ok":
            # Of one kind by all that is known, it computes other numbers: it is a kind of its own.
            self._machines[lane.node.id] = f"{self._home}, {lane.node.name}"
        else:
            why = facts.failure.what if facts.failure else result.ended.exit
            said = f"no trials ran on {lane.node.name}, where the first one fails: {why}"
            self._unused[lane.node.id] = said
        self._close(lane)
        return False


def _sent(job: Job) -> Sent:
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


def _received(job: Job, result: Done) -> Ended:
    """How a trial ended, its files in its directory."""
    directory = job.request.directory
    write(result.files, directory)
    if not (directory / FACTS).exists():
        return result.ended
    facts = replace(Facts.load(directory / FACTS), written=result.written)
    return replace(result.ended, facts=facts)
