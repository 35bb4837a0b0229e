"""Which runs pinpointing asks for, what it finds in them, and the words that a report has for that."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from repro_audit.analysis.pinpoint.model import Cause, Sample
from repro_audit.analysis.pinpoint.model import EventPair as EventPlace
from repro_audit.findings.inspection import Finding, Located, Suspicion, inspect
from repro_audit.findings.wording import VANISHED, in_words
from repro_audit.storage.events import Kind
from repro_audit.storage.facts import Facts, Failure
from repro_audit.storage.trace import Phase
from repro_audit.trial.oracle import part
from repro_audit.trial.request import Watch, Window
from tests.details import Row as Event
from tests.details import detail_of
from tests.fake_trials import FakeOracle, Left
from tests.traces import Row

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from repro_audit.experiment import Setting

VARIED: Setting = {"coin-toss": "tails"}
WINDOW = Watch(window=Window(first=0, last=0, loading=True))


@dataclass(slots=True)
class Program:
    """Two lines, each an op of the one before; a line of `diverging` makes another output at the varied level.

    What is fed to an op takes the place of its output.
    """

    diverging: tuple[int, ...] = (1,)
    unseen: bool = False
    """The ops agree, though the losses do not."""
    agrees: Callable[[int], bool] = lambda _number: False
    """Whether the watched run of that number does not part from the pinned one."""
    watched: int = 0

    def leaves(self, setting: Setting, watch: Watch) -> Left:
        """What a run leaves."""
        varied = setting == VARIED
        if varied and watch.window is not None:
            varied = not self.agrees(self.watched)
            self.watched += 1
        value, events, values = "x", [], {}
        for line, name in ((1, "aten::exp"), (2, "aten::log")):
            event = Event(Kind.OP, name, line, value)
            key = (0, int(Phase.FORWARD), f"{name}|{event.site}||0", 0)
            other = varied and line in self.diverging and not self.unseen
            value = f"{name}({value})" + ("'" if other and key not in watch.feed else "")
            events.append(replace(event, after=value))
            values[key] = (1.0, 1.25 if other else 1.0)
        differs = varied if self.unseen else "'" in value
        digest = bytes([differs]) * 16
        return Left(
            rows=(Row(name="loss", digest=digest),),
            events=events,
            values=values,
            facts=Facts(steps=1, losses=(float(digest[0]),)),
        )


def suspicion(oracle: FakeOracle, *, race: bool = False, runs: int = 1) -> Suspicion:
    """Of a pair that the oracle is asked for."""
    reference, diverged = (oracle.trial(setting, Watch()) for setting in ({}, VARIED))
    diverging = part(reference, diverged)
    assert diverging is not None
    return Suspicion(diverging=diverging, reference={}, race=race, runs=runs)


def inspected(oracle: FakeOracle, **how: bool | int) -> Finding:
    return inspect({"it": suspicion(oracle, **how)}, oracle.as_oracle)["it"]  # type: ignore[arg-type]


def lines(finding: Finding) -> list[int]:
    return [
        each.cause.place.either.site.line for each in finding.causes if each.cause.place.either.site
    ]


def test_the_first_op_that_parts_equal_inputs_and_by_how_much(tmp_path: Path) -> None:
    oracle = FakeOracle(tmp_path, Program().leaves)
    finding = inspected(oracle)
    assert lines(finding) == [1]
    (size,) = (each.size for each in finding.causes)
    assert size is not None
    assert (size.max_abs, size.mismatched, size.numel) == (0.25, 1, 2)
    # The pair is watched; then the reference saves the op's outputs, which are fed to the other run.
    pair, (saved,), (fed,) = oracle.asked
    assert pair == [({}, WINDOW), (VARIED, WINDOW)]
    assert saved[0] == {}
    assert fed[0] == VARIED
    assert saved[1].capture == fed[1].feed
    assert saved[1].capture[0][2].startswith('aten::exp|["/home/me/train.py", 1,')


def test_another_op_that_parts_the_runs_by_itself_shows_once_the_first_is_fed(
    tmp_path: Path,
) -> None:
    assert lines(inspected(FakeOracle(tmp_path, Program(diverging=(1, 2)).leaves))) == [1, 2]


def test_a_race_is_run_again_until_it_shows(tmp_path: Path) -> None:
    late = Program(agrees=lambda number: number < 2)
    assert lines(inspected(FakeOracle(tmp_path / "three", late.leaves), race=True, runs=3)) == [1]
    never = Program(agrees=lambda _number: True)
    oracle = FakeOracle(tmp_path / "never", never.leaves)
    assert inspected(oracle, race=True, runs=3).vanished
    assert never.watched == 3


def test_what_several_ask_for_is_run_once(tmp_path: Path) -> None:
    oracle = FakeOracle(tmp_path, Program().leaves)
    both = {name: suspicion(oracle) for name in ("one", "other")}
    findings = inspect(both, oracle.as_oracle)
    assert [lines(finding) for finding in findings.values()] == [[1], [1]]
    assert len(oracle.asked[0]) == 2


@pytest.mark.parametrize("one_by_one", [False, True])
def test_each_is_told_once_it_is_found(tmp_path: Path, *, one_by_one: bool) -> None:
    oracle = FakeOracle(tmp_path, Program().leaves)
    both = {name: suspicion(oracle) for name in ("one", "other")}
    told: list[tuple[str, int]] = []
    inspect(
        both,
        oracle.as_oracle,
        lambda name, finding: told.append((name, len(lines(finding)))),
        one_by_one=one_by_one,
    )
    assert told == [("one", 1), ("other", 1)]
    assert len(oracle.asked) == 3  # the other one finds its runs made


def test_of_races_one_by_one_each_attempt_is_a_run_of_its_own(tmp_path: Path) -> None:
    late = Program(agrees=lambda number: number < 2)
    oracle = FakeOracle(tmp_path, late.leaves)
    both = {name: suspicion(oracle, race=True, runs=3) for name in ("one", "other")}
    found = inspect(both, oracle.as_oracle, one_by_one=True)
    assert [lines(finding) for finding in found.values()] == [[1], [1]]


def test_nothing_that_was_watched_differs(tmp_path: Path) -> None:
    finding = inspected(FakeOracle(tmp_path, Program(unseen=True).leaves))
    assert not finding.causes
    assert finding.reason == "no op, line, draw or file that was watched differs before it"
    assert in_words(finding) == (None, finding.reason)


def test_a_run_that_fails_under_watch_ends_the_inspection(tmp_path: Path) -> None:
    program = Program()

    def leaves(setting: Setting, watch: Watch) -> Left:
        left = program.leaves(setting, watch)
        if watch.window is None:
            return left
        facts = Facts(failure=Failure(what="MemoryError"))
        return replace(left, status="crashed", facts=facts)

    finding = inspected(FakeOracle(tmp_path, leaves))
    assert finding.reason == "watched op by op, a run failed: MemoryError"


# In words


def located(event: Event, **words: object) -> Located:
    """The cause that an event is."""
    detail = detail_of([event])
    place = EventPlace(event=detail.event(0), other=detail.event(0))
    words = {"kind": "op", "detail": "", "process": "main", "other_process": "main", **words}
    return Located(cause=Cause(place=place, **words))  # type: ignore[arg-type]  # fields of Cause


OP = Event(Kind.OP, "aten::exp", 7, "x", "y", module="model.0")


def test_an_op_in_words() -> None:
    first, other = located(OP), located(replace(OP, line=9))
    cause, reason = in_words(Finding(causes=(first, other), reason="lines end early"))
    assert cause is not None
    assert cause.what == "the same inputs gave another output"
    assert (cause.op, cause.module, cause.step, cause.phase) == (
        "aten::exp",
        "model.0",
        0,
        "forward",
    )
    assert cause.location is not None
    assert (cause.location.line, cause.location.function) == (7, "forward")
    assert [each.location.line for each in cause.also if each.location] == [9]
    assert reason == "lines end early"


def test_a_file_of_the_working_directory_is_called_as_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("one\n  two\n", encoding="utf-8")
    file = str(tmp_path / "train.py")
    found = located(replace(OP, line=2, file=file), detail=f"{file}:1 drew more")
    cause, _ = in_words(Finding(causes=(found,)))
    assert cause is not None
    assert cause.what == "the same inputs gave another output; train.py:1 drew more"
    assert cause.location is not None
    assert (cause.location.file, cause.location.code) == ("train.py", "two")


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ({"kind": "draw", "generator": "numpy", "detail": "drew more"}, "NumPy's global generator"),
        ({"kind": "draw", "generator": "loader 0", "detail": "drew more"}, "loader 0"),
    ],
)
def test_a_draw_names_its_generator(words: dict[str, object], what: str) -> None:
    cause, _ = in_words(Finding(causes=(located(replace(OP, kind=Kind.DRAW), **words),)))
    assert cause is not None
    assert cause.what == f"{what} drew more"
    assert cause.op is None


def test_a_worker_and_its_sample_are_named() -> None:
    found = located(
        OP,
        process="worker-0-1-2",
        other_process="main",
        sample=Sample(fetch="0.1: 4, 5", position=1, index="5"),
    )
    cause, _ = in_words(Finding(causes=(found,)))
    assert cause is not None
    assert cause.evidence == (
        "while fetching sample 1 of the batch, index 5 of the dataset, of batch 0.1: 4, 5",
        "in the pinned run by worker 2 (epoch 1); in the varied run by the main process",
    )


def test_a_generator_that_nothing_seeded_is_told_from_its_first_draw() -> None:
    first = detail_of([Event(Kind.DRAW, "python", 3, "x", "y", phase=Phase.INIT)]).event(0)
    began = EventPlace(event=first, other=first)
    draw = located(replace(OP, kind=Kind.DRAW), kind="draw", generator="python", began=began)
    finding = Finding(causes=(draw,))
    told, _ = in_words(finding, never_seeded=True)
    assert told is not None
    assert told.location is not None
    assert (told.location.line, told.phase) == (3, "init")
    assert told.evidence == ("it first shows in what /home/me/train.py:7 draws",)
    seeded, _ = in_words(finding)
    assert seeded is not None
    assert seeded.location is not None
    assert (seeded.location.line, seeded.evidence) == (7, ())


def test_runs_that_agree_once_watched() -> None:
    assert in_words(Finding(vanished=True)) == (None, VANISHED)
