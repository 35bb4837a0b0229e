"""Runs the trials of one audit on the nodes of a cluster, as `trial.runner.Runner` does on this machine."""

from __future__ import annotations

import math
import shutil
import time
from collections import Counter, deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from repro_audit.errors import UsageError
from repro_audit.source import listed
from repro_audit.storage.trace import Trace
from repro_audit.trial.cluster.connection import START_SECONDS, LostError
from repro_audit.trial.cluster.crossing import gone, received, sent
from repro_audit.trial.cluster.machines import Machines
from repro_audit.trial.runner import UNTESTED, Ended, Environment, Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from repro_audit.trial.cluster.connection import Cluster
    from repro_audit.trial.cluster.crossing import Done
    from repro_audit.trial.cluster.lane import Opened, Plan
    from repro_audit.trial.cluster.nodes import Node

ATTEMPTS = 3
"""Times that a trial's node may be lost before it counts as the trial's doing."""
POLL_SECONDS = 0.5
JOIN_SECONDS = 60.0
"""How long the audit waits for room on a further node."""
CLOSE_SECONDS = 30.0
CLEAR_SECONDS = 10.0

Numbered = tuple[int, Job]


@dataclass(slots=True, eq=False)
class Open:
    """A lane that is there, and what it is doing."""

    node: Node
    machine: str
    """The kind of its node, in words."""
    handle: Any
    gpus: int
    call: Any
    """First the one that tells of it, once there is room on its node; None while it is idle."""
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
        """The first trial's, once it has ended well."""
        self._digest: str | None = None
        """Of the first trial, while those that repeat it elsewhere are compared with it."""
        self._one_by_one = False
        self._lost: list[str] = []
        self._uncleared: dict[str, Node] = {}
        """Nodes on which lanes were killed, by their ids."""
        self._lanes: list[Open] = []
        self._machines = Machines(cluster, plan.environment)
        try:
            self.opened: Opened = self._opened_first(side_by_side)
        except BaseException:
            self.__exit__()
            raise

    def _opened_first(self, side_by_side: int | None) -> Opened:
        for node in self._machines.best_first():
            self._first_node, self._home = node.id, self._machines.of(node)
            self._gpus = min(node.gpus, 1)
            """That each lane has to itself."""
            self.side_by_side = side_by_side or min(2, node.cpus)
            opened = self._opened(self._open(node), START_SECONDS)
            if opened is not None:
                return opened
        raise UsageError(
            "No node of the Ray cluster can run trials.",
            where="--on",
            why="; ".join(self._machines.notes) or "none has a CPU",
            next_step="see: ray status",
        )

    def __enter__(self) -> ClusterRunner:
        return self

    def __exit__(self, *_: object) -> None:
        for lane in list(self._lanes):
            self._close(lane)
        if self._uncleared:
            left = [node for node in self._cluster.nodes() if node.id in self._uncleared]
            self._cluster.clear(left, self._plan.audit, seconds=CLEAR_SECONDS)

    @property
    def spent(self) -> bool:
        """As `Runner.spent`."""
        return self.until is not None and time.monotonic() > self.until

    @property
    def notes(self) -> tuple[str, ...]:
        """Where trials ran, and what was lost."""
        used = Counter({lane.node.id: lane.machine for lane in self._lanes}.values())
        told = [f"{many} node{'s' * (many > 1)} ({machine})" for machine, many in used.items()]
        return (
            f"trials ran on a Ray cluster: {listed(told)}",
            *self._said_of_lost(),
            *self._machines.notes,
        )

    def _said_of_lost(self) -> list[str]:
        if not self._lost:
            return []
        return [f"lost, and its trials made again elsewhere: {listed(self._lost)}"]

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
        self._digest, self._gpus = digest, int(uses_gpu)
        if not uses_gpu:
            for lane in [lane for lane in self._lanes if lane.gpus]:
                self._close(lane)
        taken = Counter(lane.node.id for lane in self._lanes)
        nodes = self._machines.usable()
        opening = [
            self._open(node)
            for node in nodes
            if self._machines.of(node) == self._home
            for _ in range((node.gpus if uses_gpu else 1) - taken[node.id])
        ]
        until = time.monotonic() + JOIN_SECONDS
        for lane in [lane for lane in opening if self._joins(lane, until)]:
            self._agrees(lane)
        machines = dict.fromkeys(self._machines.of(node) for node in nodes)
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

        def end(number: int, job: Job, result: Done) -> None:
            ended[number] = received(job, result)
            self.progress(job.request.directory.name, None)
            done(number, ended[number])

        while len(ended) < len(jobs):
            if self.spent:
                ended |= {number: UNTESTED for number, _ in waiting}
                waiting.clear()
            for number, job in self._without_node(waiting):
                end(number, job, gone("was not run, since no node of its kind is left"))
            self._submit(waiting)
            for lane in self._answered():
                numbered, lane.jobs = lane.jobs, []
                try:
                    results = self._cluster.result(lane.call)
                except LostError:
                    self._lose(lane)
                    attempts.update(number for number, _ in numbered)
                    again = [each for each in numbered if attempts[each[0]] < ATTEMPTS]
                    waiting.extendleft(reversed(again))
                    numbered = [each for each in numbered if each not in again]
                    results = [gone(f"was lost with its node, {ATTEMPTS} times")] * len(numbered)
                lane.call = None
                for (number, job), result in zip(numbered, results, strict=True):
                    if job.request.first and result.ended.status == "ok":
                        self._first, self._first_node = job, lane.node.id
                    end(number, job, result)
        return [ended[number] for number in range(len(jobs))]

    # Handing out

    def _without_node(self, waiting: deque[Numbered]) -> list[Numbered]:
        """Have a lane of each kind that is waited for; what is asked of other kinds, and finds none, waits no more.

        Raises:
            UsageError: there is no node for the first trial's kind.
        """
        missing = set()
        for machine in dict.fromkeys(self._machine(job) for _, job in waiting):
            if not any(lane.machine == machine for lane in self._lanes):
                if self._replace(machine):
                    continue
                if machine != self._home:
                    missing.add(machine)
                else:
                    raise UsageError(
                        f"No node of the Ray cluster is left that is like this: {machine}",
                        where="--on",
                        why="; ".join((*self._said_of_lost(), *self._machines.notes))
                        or "none answers",
                        next_step="see: ray status; then run the audit again",
                    )
        without = [each for each in waiting if self._machine(each[1]) in missing]
        for each in without:
            waiting.remove(each)
        return without

    def _submit(self, waiting: deque[Numbered]) -> None:
        """Give the lanes that are idle what they may run, to each an equal share."""
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
        lane.jobs = jobs
        lane.call = self._cluster.call(
            lane.handle,
            "run",
            [sent(job) for _, job in jobs],
            side_by_side=self.side_by_side,
            timeout=self.timeout,
        )

    def _answered(self) -> list[Open]:
        """The lanes whose trials have ended, or that are lost, after waiting a while for one."""
        busy = {lane.call: lane for lane in self._lanes if lane.call is not None}
        if not busy:
            return []
        return [busy[call] for call in self._cluster.ready(list(busy), seconds=POLL_SECONDS)]

    # Lanes

    def _open(self, node: Node) -> Open:
        gpus = min(self._gpus, node.gpus)
        cpus = min(self.side_by_side, node.cpus // max(1, node.gpus if gpus else 1))
        handle = self._cluster.open(node, self._plan, cpus=cpus, gpus=gpus)
        self._cluster.call(handle, "warm", self._wanted, self._modules)
        lane = Open(
            node=node,
            machine=self._machines.of(node),
            handle=handle,
            gpus=gpus,
            call=self._cluster.call(handle, "opened"),
        )
        self._lanes.append(lane)
        return lane

    def _opened(self, lane: Open, seconds: float) -> Opened | None:
        """What a lane says of itself; None where it does not, and the node is left alone."""
        try:
            opened: Opened = self._cluster.result(lane.call, seconds=seconds)
        except LostError as error:
            self._machines.leave(lane.node, str(error))
            self._kill(lane)
            return None
        lane.call = None
        return opened

    def _close(self, lane: Open) -> None:
        if lane.call is None:
            self._lanes.remove(lane)
            with suppress(Exception):  # whatever it is, it ends with the lane
                closing = self._cluster.call(lane.handle, "close")
                self._cluster.result(closing, seconds=CLOSE_SECONDS)
                self._cluster.end(lane.handle)
                return
        self._kill(lane)

    def _kill(self, lane: Open) -> None:
        self._lanes = [each for each in self._lanes if each is not lane]
        self._cluster.end(lane.handle)
        self._uncleared[lane.node.id] = lane.node

    def _lose(self, lane: Open) -> None:
        self._lost.append(lane.node.name)
        self._kill(lane)

    def _replace(self, machine: str) -> bool:
        """Have a lane of a kind of which there is none, or none any more; whether a node is left for it."""
        nodes = [node for node in self._machines.usable() if self._machines.of(node) == machine]
        for node in nodes:
            lane = self._open(node)
            if self._joins(lane, time.monotonic() + JOIN_SECONDS) and self._agrees(lane):
                return True
        return False

    def _joins(self, lane: Open, until: float) -> bool:
        """Whether a lane opens until then; it begins with the first trial, whose tree others go on from."""
        opened = self._opened(lane, max(0.0, until - time.monotonic()))
        if opened is None:
            return False
        if opened.isolation != self.opened.isolation:
            kept = f"what they write is kept apart by {opened.isolation} there"
            self._machines.leave(lane.node, f"{kept}, not by {self.opened.isolation}")
            self._close(lane)
            return False
        if lane.machine == self._home and self._first is not None:
            self._begin(lane, [(0, self._first)])
        return True

    def _agrees(self, lane: Open) -> bool:
        """Whether a lane repeats the first trial, where it was to; one that does not is closed."""
        if lane.call is None:
            return True
        repeated = self._repeated(lane)
        if repeated is None:
            return False
        ended, digest = repeated
        if ended.status != "ok":
            why = ended.facts.failure.what if ended.facts and ended.facts.failure else ended.exit
            self._machines.leave(lane.node, f"the first trial fails there: {why}")
        elif digest == self._digest or lane.node.id == self._first_node:
            return True
        elif self._repeats_itself():
            # Of one kind by all that is known, it computes other numbers: it is a kind of its own.
            self._machines.part(lane.node)
        else:
            self._digest = None
            return True
        self._close(lane)
        return False

    def _repeats_itself(self) -> bool:
        """Whether the first trial gives the same once more where it was made; if nobody can tell, it does."""
        if self._first is None or self._digest is None:
            return False
        idle = (lane for lane in self._lanes if lane.call is None)
        lane = next((lane for lane in idle if lane.node.id == self._first_node), None)
        if lane is None:
            return True
        directory = self._first.request.directory.with_name("again")
        request = replace(self._first.request, directory=directory, first=False)
        self._begin(lane, [(0, replace(self._first, request=request))])
        repeated = self._repeated(lane)
        return repeated is None or repeated[1] == self._digest

    def _repeated(self, lane: Open) -> tuple[Ended, str | None] | None:
        """How the trial ended that a lane repeats, and its digest; None where the lane is lost."""
        try:
            (result,) = self._cluster.result(lane.call, seconds=None)
        except LostError:
            self._lose(lane)
            return None
        lane.call = None
        (_, job), *_ = lane.jobs
        place = job.request.directory.with_name("repeated")
        ended = received(replace(job, request=replace(job.request, directory=place)), result)
        digest = Trace.open(place / "trace").outcome_digest() if ended.status == "ok" else None
        shutil.rmtree(place, ignore_errors=True)
        return ended, digest
