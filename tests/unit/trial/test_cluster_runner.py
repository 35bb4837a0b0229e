"""Trials are handed out to the lanes of a cluster, and made again where a lane is lost."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from repro_audit.errors import UsageError
from repro_audit.isolation.tree import Tree
from repro_audit.storage.border import loads
from repro_audit.storage.facts import Facts, Failure
from repro_audit.storage.trace import Trace, TraceWriter
from repro_audit.target import Target
from repro_audit.trial.cluster.connection import Cluster, LostError
from repro_audit.trial.cluster.crossing import Done, Sent, read
from repro_audit.trial.cluster.lane import Opened, Plan
from repro_audit.trial.cluster.nodes import Kind, Node
from repro_audit.trial.cluster.runner import ATTEMPTS, ClusterRunner
from repro_audit.trial.request import FACTS, TrialRequest
from repro_audit.trial.runner import UNTESTED, Ended, Job
from tests.traces import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

AMD, INTEL = ("AMD", "AVX2"), ("Intel", "AVX512")


@dataclass(slots=True, kw_only=True)
class Machine:
    """A node, as a test wants it."""

    name: str
    kind: Kind = AMD
    cpus: int = 2
    gpus: int = 0
    computes: str = "alike"
    """What comes out of its trials."""
    noisy: bool = False
    """Each trial has other numbers."""
    failure: Failure | None = None
    """Of each trial."""
    losses: int = 0
    """How many calls are lost from now on, and its process with each."""
    dies: bool = False
    """It is gone with the first of them."""
    silent: str = ""
    """Why it can not even tell its kind."""
    full: bool = False
    """It has no room for a lane."""
    interrupted: bool = False
    """The user loses patience with it."""
    isolation: str = "overlay"


@dataclass(slots=True, eq=False)
class FakeLane:
    machine: Machine
    cpus: int
    gpus: int
    closed: bool = False
    ended: bool = False


@dataclass(slots=True, eq=False)
class FakeCall:
    lane: FakeLane
    answer: Callable[[], Any]


@dataclass(slots=True)
class FakeCluster:
    """Machines that answer at once, and what they were asked."""

    machines: list[Machine]
    scratch: Path
    lanes: list[FakeLane] = field(default_factory=list)
    ran: list[tuple[str, list[str]]] = field(default_factory=list)
    """By each call: on which machine, and which trials."""
    cleared: list[str] = field(default_factory=list)
    made: int = 0

    def nodes(self) -> list[Node]:
        return [
            Node(id=each.name, name=each.name, cpus=each.cpus, gpus=each.gpus)
            for each in self.machines
        ]

    def kinds(
        self, found: Sequence[Node], environment: Mapping[str, str]
    ) -> tuple[dict[str, Kind], dict[str, str]]:
        assert environment == {"SEED": "0"}
        asked = [each for each in self.machines if each.name in {node.id for node in found}]
        kinds = {each.name: each.kind for each in asked if not each.silent}
        return kinds, {each.name: each.silent for each in asked if each.silent}

    def open(self, node: Node, plan: Plan, *, cpus: int, gpus: int) -> FakeLane:
        assert plan.audit == "audit"
        (machine,) = (each for each in self.machines if each.name == node.id)
        self.lanes.append(FakeLane(machine, cpus, gpus))
        return self.lanes[-1]

    def call(self, lane: FakeLane, method: str, *arguments: Any, **_: Any) -> FakeCall:
        answers: dict[str, Callable[[], Any]] = {
            "warm": lambda: None,
            "opened": lambda: self._opened(lane),
            "close": lambda: setattr(lane, "closed", True),
            "run": lambda: self._run(lane, *arguments),
        }
        return FakeCall(lane, answers[method])

    def ready(self, calls: Sequence[FakeCall], *, seconds: float) -> list[FakeCall]:
        assert calls, "Ray refuses to wait for nothing"
        assert seconds > 0
        return list(calls[:1])

    def result(self, call: FakeCall, *, seconds: float | None = None) -> Any:
        if call.lane.ended:
            raise LostError("ended")
        return call.answer()

    def end(self, lane: FakeLane) -> None:
        lane.ended = True

    def clear(self, found: Sequence[Node], audit: str, *, seconds: float) -> None:
        assert audit == "audit"
        self.cleared += [node.name for node in found]

    def _opened(self, lane: FakeLane) -> Opened:
        if lane.machine.interrupted:
            raise KeyboardInterrupt
        if lane.machine.full:
            raise LostError("it has no room, or does not answer")
        return Opened(isolation=lane.machine.isolation, reason="")  # type: ignore[arg-type]

    def _run(self, lane: FakeLane, sent: Sequence[Sent]) -> list[Done]:
        machine = lane.machine
        jobs = [name_of(each) for each in sent]
        self.ran.append((machine.name, jobs))
        if machine.losses:
            machine.losses -= 1
            lane.ended = True
            if machine.dies:
                self.machines.remove(machine)
            raise LostError("gone")
        return [self._done(machine) for _ in sent]

    def _done(self, machine: Machine) -> Done:
        self.made += 1
        directory = self.scratch / f"{self.made}"
        writer = TraceWriter(directory / "trace")
        row = Row()
        content = f"{machine.computes}{self.made if machine.noisy else ''}"
        names = writer.intern(row.name), writer.intern(row.meta)
        writer.add(row.step, row.phase, row.role, *names, content.encode().ljust(16)[:16])
        writer.close()
        failure = machine.failure
        Facts(steps=8, failure=failure).save(directory / FACTS)
        ended = Ended(
            status="crashed" if failure else "ok",
            seconds=1.0,
            output="",
            facts=None,
            exit="exited with status 0",
        )
        return Done(ended=ended, written=("cache.pt",), files=read(directory))


def name_of(sent: Sent) -> str:
    """Of a trial on its way; all else that is in there stays as it is."""
    request = loads(TrialRequest, sent.request)
    assert request.directory == Path(request.directory.name)
    return request.directory.name


class Audit:
    """What has its trials run on machines."""

    def __init__(self, tmp_path: Path) -> None:
        self.tmp_path = tmp_path
        self.shown: list[tuple[str, bool]] = []
        """Trials, as progress shows them: at their beginning, and at their end."""

    def on(self, *machines: Machine, side_by_side: int | None = None) -> ClusterRunner:
        self.cluster = FakeCluster(list(machines), self.tmp_path / "done")
        plan = Plan(audit="audit", root="/home/tree", environment={"SEED": "0"}, deciding=())
        return ClusterRunner(
            cast("Cluster", self.cluster),
            plan,
            side_by_side=side_by_side,
            timeout=60.0,
            progress=lambda trial, setting: self.shown.append((trial, setting is None)),
        )

    def job(self, name: str, *, first: bool = False, **words: Any) -> Job:
        root = Path("/home/tree")
        request = TrialRequest(
            directory=self.tmp_path / "trials" / name,
            target=Target(spec="train.py", mode="script"),
            tree=Tree(kind="overlay", root=root, cwd=root),
            seed=0,
            steps=8,
            first=first,
        )
        return Job(request=request, **words)

    def jobs(self, count: int, **words: Any) -> list[Job]:
        return [self.job(f"t{number}", **words) for number in range(count)]

    def spread(self, runner: ClusterRunner, *, uses_gpu: bool = False) -> tuple[str, ...]:
        """Make the first trial, and have others run everywhere."""
        first = self.job("first", first=True)
        (ended,) = runner.run([first])
        assert ended.facts is not None
        assert ended.facts.written == ("cache.pt",)
        digest = Trace.open(first.request.directory / "trace").outcome_digest()
        machines = runner.spread(digest, uses_gpu=uses_gpu)
        self.cluster.ran.clear()
        return machines


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    return Audit(tmp_path)


def test_nodes_get_equal_shares_of_trials(audit: Audit) -> None:
    with audit.on(Machine(name="one"), Machine(name="two")) as runner:
        assert audit.spread(runner) == ("AMD",)
        ended = runner.run(audit.jobs(2))
        assert runner.notes == ("trials ran on a Ray cluster: 2 nodes (AMD)",)
    assert audit.cluster.ran == [("one", ["t0"]), ("two", ["t1"])]
    assert [each.status for each in ended] == ["ok", "ok"]
    assert ("t0", False) in audit.shown
    assert ("t0", True) in audit.shown
    assert all(lane.closed for lane in audit.cluster.lanes)
    assert not audit.cluster.cleared


def test_a_node_runs_so_many_side_by_side(audit: Audit) -> None:
    with audit.on(Machine(name="one"), Machine(name="two"), side_by_side=3) as runner:
        audit.spread(runner)
        runner.run(audit.jobs(7))
        assert sorted(len(jobs) for _, jobs in audit.cluster.ran) == [1, 3, 3]
        audit.cluster.ran.clear()
        with runner.one_by_one():
            runner.run(audit.jobs(3))
        assert audit.cluster.ran == [("one", [f"t{number}"]) for number in range(3)]
    assert [lane.cpus for lane in audit.cluster.lanes] == [2, 2]


def test_trials_that_hang_on_the_load_share_a_node(audit: Audit) -> None:
    with audit.on(Machine(name="one"), Machine(name="two")) as runner:
        audit.spread(runner)
        runner.run([*audit.jobs(4, hangs_on_load=True), audit.job("other")])
    where = {trial: name for name, jobs in audit.cluster.ran for trial in jobs}
    assert {where[f"t{number}"] for number in range(4)} == {"one"}
    assert where["other"] == "two"


def test_another_kind_of_node_is_used_once_it_is_asked_for(audit: Audit) -> None:
    with audit.on(
        Machine(name="other", kind=INTEL), Machine(name="one"), Machine(name="two")
    ) as runner:
        assert audit.spread(runner) == ("AMD, AVX2", "Intel, AVX512")
        assert [lane.machine.name for lane in audit.cluster.lanes] == ["one", "two"]
        runner.run([audit.job("there", machine="Intel, AVX512"), audit.job("here")])
        assert audit.cluster.ran == [("one", ["here"]), ("other", ["there"])]
        assert "2 nodes (AMD, AVX2) and 1 node (Intel, AVX512)" in runner.notes[0]


def test_what_a_lost_node_ran_is_made_again_elsewhere(audit: Audit) -> None:
    one, two = Machine(name="one"), Machine(name="two")
    with audit.on(one, two) as runner:
        audit.spread(runner)
        two.losses, two.dies = 1, True
        ended = runner.run(audit.jobs(4))
    assert [each.status for each in ended] == ["ok"] * 4
    assert audit.cluster.ran[1:] == [("two", ["t2", "t3"]), ("one", ["t2", "t3"])]
    assert runner.notes[1] == "lost, and its trials made again elsewhere: two"
    assert not audit.cluster.cleared  # there is nobody to do it


def test_a_new_lane_makes_the_first_trial_before_others(audit: Audit) -> None:
    one = Machine(name="one")
    with audit.on(one) as runner:
        audit.spread(runner)
        one.losses = 1
        (ended,) = runner.run([audit.job("t0")])
    assert ended.status == "ok"
    assert [jobs for _, jobs in audit.cluster.ran] == [["t0"], ["first"], ["t0"]]
    assert audit.cluster.cleared == ["one"]  # of what the killed lane left


def test_a_trial_that_kills_its_node_each_time_is_given_up(audit: Audit) -> None:
    one = Machine(name="one")
    with audit.on(one) as runner:
        (ended,) = runner.run([audit.job("before")])
        one.losses = ATTEMPTS
        (ended,) = runner.run([audit.job("t0")])
        assert (ended.status, ended.exit) == (
            "crashed",
            f"was lost with its node, {ATTEMPTS} times",
        )
        assert runner.run([audit.job("t1")])[0].status == "ok"


def test_a_new_node_takes_the_place_of_a_lost_one(audit: Audit) -> None:
    one = Machine(name="one", losses=1, dies=True)
    with audit.on(one) as runner:
        audit.cluster.machines += [Machine(name="other", kind=INTEL), Machine(name="new")]
        (ended,) = runner.run([audit.job("first", first=True)])
    assert ended.status == "ok"
    assert [name for name, _ in audit.cluster.ran] == ["one", "new"]


def test_there_is_an_error_where_all_nodes_are_lost(audit: Audit) -> None:
    one = Machine(name="one", losses=1, dies=True)
    with (
        audit.on(one, Machine(name="other", kind=INTEL)) as runner,
        pytest.raises(UsageError, match="is left that is like this: AMD") as raised,
    ):
        runner.run([audit.job("first", first=True)])
    assert "elsewhere: one" in raised.value.why


def test_that_another_kind_is_lost_costs_only_its_own_trials(audit: Audit) -> None:
    other = Machine(name="other", kind=INTEL)
    with audit.on(Machine(name="one"), other) as runner:
        _, kind = audit.spread(runner)
        other.losses, other.dies = 1, True
        here, there = runner.run([audit.job("here"), audit.job("there", machine=kind)])
    assert here.status == "ok"
    assert (there.status, there.exit) == (
        "crashed",
        "was not run, since no node of its kind is left",
    )


def test_a_node_that_computes_otherwise_is_a_kind_of_its_own(audit: Audit) -> None:
    with audit.on(Machine(name="one"), Machine(name="two", computes="otherwise")) as runner:
        assert audit.spread(runner) == ("AMD", "AMD, two")
        runner.run([*audit.jobs(2), audit.job("there", machine="AMD, two")])
    assert audit.cluster.ran == [("one", ["t0", "t1"]), ("two", ["there"])]


def test_noise_makes_no_kinds_of_machine(audit: Audit) -> None:
    machines = [Machine(name=name, noisy=True) for name in ("one", "two", "three")]
    with audit.on(*machines) as runner:
        assert audit.spread(runner) == ("AMD",)
        runner.run(audit.jobs(3))
    assert [name for name, _ in audit.cluster.ran] == ["one", "two", "three"]


def test_a_node_where_the_first_trial_fails_is_left_alone(audit: Audit) -> None:
    missing = Failure(what="ModuleNotFoundError: No module named 'timm'")
    one = Machine(name="one")
    with audit.on(
        one,
        Machine(name="two", failure=missing),
        Machine(name="three", isolation="copy"),
        Machine(name="four", full=True),
        Machine(name="five", silent="No package metadata was found for torch"),
    ) as runner:
        assert audit.spread(runner) == ("AMD",)
        one.losses = 1
        runner.run(audit.jobs(4))
    assert {name for name, _ in audit.cluster.ran} == {"one"}
    opened = [lane.machine.name for lane in audit.cluster.lanes]
    assert opened == ["one", "two", "three", "four", "one"]
    assert set(runner.notes[2:]) == {
        "no trials ran on two: the first trial fails there: ModuleNotFoundError: No module named 'timm'",
        "no trials ran on three: what they write is kept apart by copy there, not by overlay",
        "no trials ran on four: it has no room, or does not answer",
        "no trials ran on five: No package metadata was found for torch",
    }


def test_the_first_trial_runs_where_there_is_room(audit: Audit) -> None:
    with audit.on(Machine(name="full", full=True), Machine(name="one")) as runner:
        audit.spread(runner)
        runner.run(audit.jobs(1))
    assert audit.cluster.ran == [("one", ["t0"])]


def test_there_is_an_error_where_no_node_can_run_trials(audit: Audit) -> None:
    with pytest.raises(UsageError, match="No node of the Ray cluster can run trials") as raised:
        audit.on(Machine(name="one", silent="No module named 'xxhash'"))
    assert raised.value.why == "no trials ran on one: No module named 'xxhash'"
    with pytest.raises(UsageError) as raised:
        audit.on()
    assert raised.value.why == "none has a CPU"


def test_what_is_interrupted_while_it_opens_is_cleared_away(audit: Audit) -> None:
    two = Machine(name="two", interrupted=True)
    with pytest.raises(KeyboardInterrupt), audit.on(Machine(name="one"), two) as runner:
        audit.spread(runner)
    assert all(lane.ended for lane in audit.cluster.lanes)
    assert audit.cluster.cleared == ["two"]
    with pytest.raises(KeyboardInterrupt):
        audit.on(two)
    assert audit.cluster.cleared == ["two"]


def test_nothing_starts_once_the_time_is_over(audit: Audit) -> None:
    with audit.on(Machine(name="one")) as runner:
        runner.until = time.monotonic() - 1
        assert runner.run(audit.jobs(2)) == [UNTESTED, UNTESTED]
    assert not audit.cluster.ran


@pytest.mark.parametrize(
    ("uses_gpu", "gpus", "cpus"), [(False, [1, 0, 0], [1, 2, 2]), (True, [1, 1, 1], [1, 1, 1])]
)
def test_a_lane_has_a_gpu_where_the_program_uses_one(
    audit: Audit, uses_gpu: bool, gpus: list[int], cpus: list[int]
) -> None:
    with audit.on(
        Machine(name="plain", cpus=64),
        Machine(name="two", cpus=2, gpus=2),
        Machine(name="three", cpus=2, gpus=2),
    ) as runner:
        audit.spread(runner, uses_gpu=uses_gpu)
        assert [lane.gpus for lane in audit.cluster.lanes][:3] == gpus
        assert [lane.cpus for lane in audit.cluster.lanes][:3] == cpus
        assert audit.cluster.lanes[0].closed is not uses_gpu


def test_a_lane_that_takes_the_place_of_one_with_a_gpu_has_one_too(audit: Audit) -> None:
    one = Machine(name="one", gpus=1, losses=1)
    with audit.on(one) as runner:
        audit.spread(runner, uses_gpu=True)
    assert [lane.gpus for lane in audit.cluster.lanes] == [1, 1]


@pytest.mark.parametrize("here", [True, False])
def test_a_file_that_ray_does_not_send_is_told_of(audit: Audit, here: bool) -> None:
    file = audit.tmp_path / "data.csv"
    if here:
        file.write_text("1, 2", encoding="utf-8")
    failure = Failure(what="FileNotFoundError: data.csv", missing=str(file))
    job = audit.job("first", first=True)
    tree = replace(job.request.tree, root=audit.tmp_path)
    with audit.on(Machine(name="one", failure=failure)) as runner:
        (ended,) = runner.run([replace(job, request=replace(job.request, tree=tree))])
    assert ended.facts is not None
    assert ended.facts.failure is not None
    assert (".gitignore" in ended.facts.failure.why) is here
    assert ("RAY_RUNTIME_ENV_IGNORE_GITIGNORE" in ended.facts.failure.next_step) is here


@pytest.mark.parametrize("lacks", ["file", "module"])
def test_what_lies_outside_of_the_tree_is_told_of(
    audit: Audit, tmp_path_factory: pytest.TempPathFactory, lacks: str
) -> None:
    file = tmp_path_factory.mktemp("elsewhere") / "data.csv"
    file.touch()
    failure = (
        Failure(what="FileNotFoundError: data.csv", missing=str(file))
        if lacks == "file"
        else Failure(what="ModuleNotFoundError: No module named 'lib'")
    )
    with audit.on(Machine(name="one", failure=failure)) as runner:
        (ended,) = runner.run([audit.job("first", first=True)])
    assert ended.facts is not None
    assert ended.facts.failure is not None
    assert "nodes have only what lies in" in ended.facts.failure.why
    assert ".gitignore" not in ended.facts.failure.why
