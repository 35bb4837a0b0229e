"""What a finding says: sizes, levels that agree, what proves cause and fix, and why a source was not judged."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from repro_audit.experiment import Judgement, LevelOutcome
from repro_audit.findings.evidence import Tried, finding, located, read
from repro_audit.findings.measurement import measure
from repro_audit.fixes import Proposal
from repro_audit.report.model import Confidence, DivergenceKind, SourceStatus
from repro_audit.source import Fix, Levels, Place, Scope, Source, in_words
from repro_audit.storage.facts import Facts, Failure
from repro_audit.storage.trace import Phase, Role
from repro_audit.trial.oracle import part
from repro_audit.trial.request import Watch
from tests.fake_trials import FakeOracle, Left
from tests.traces import Row

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from repro_audit.experiment import Setting
    from repro_audit.experiment.design import LevelStatus
    from repro_audit.report.model import Divergence, SourceResult

ID = "coin-toss"
OUTPUT = (0, int(Phase.FORWARD), "output", 0)
SOURCE = Source(
    name="plugins.coin_toss",
    doc="A coin decides.\n",
    scope=Scope.RERUN,
    pinned="heads",
    levels=lambda _facts: Levels(varied=("tails", "edge")),
    judge=in_words(held="no coin was tossed", broke="the loss follows the coin"),
    fix=lambda _facts: Fix(summary="Toss no coin", snippet="coin = 'heads'"),
)


def rows(number: int) -> tuple[Row, ...]:
    return (Row(digest=bytes([number]) * 16), Row(name="loss", digest=bytes([number]) * 16))


def level(name: str, trial: str | None, *, diverged: bool | None = True) -> LevelOutcome:
    status: LevelStatus = "ok" if diverged is not None else "crashed"
    return LevelOutcome(level=name, diverged=diverged, trial=trial, status=status)


def oracle_of(directory: Path, **by_level: Left) -> FakeOracle:
    """With a trial at each level, of which `heads` is the pinned one, in the order in which they are given."""
    oracle = FakeOracle(directory, lambda setting, _watch: by_level[setting.get(ID, "heads")])
    for name in by_level:
        oracle.trial({ID: name} if name != "heads" else {}, Watch())
    return oracle


def size_of(oracle: FakeOracle) -> Divergence:
    difference = part(oracle.trials["t00"], oracle.trials["t01"])
    assert difference is not None
    return measure({ID: difference}, oracle.as_oracle)[ID]


def left(number: int, *values: float) -> Left:
    return Left(rows=rows(number), values={OUTPUT: values})


# By how much


def test_values_that_no_run_saved_are_had_by_one_more_run_of_each_setting(tmp_path: Path) -> None:
    oracle = oracle_of(tmp_path, heads=left(0, 1.0, 2.0), tails=left(1, 1.0, 2.5))
    divergence = size_of(oracle)
    settings: list[Setting] = [{}, {ID: "tails"}]
    assert oracle.asked == [[(each, Watch(capture=(OUTPUT,))) for each in settings]]
    assert (divergence.step, divergence.phase, divergence.name) == (0, "forward", "output")
    assert divergence.size is not None
    assert (divergence.size.max_abs, divergence.size.mismatched, divergence.size.numel) == (
        0.5,
        1,
        2,
    )
    assert [link.what for link in divergence.way] == ["output", "loss"]


def test_the_same_rows_in_another_order_are_told_from_other_values(tmp_path: Path) -> None:
    oracle = oracle_of(tmp_path, heads=left(0, 1.0, 2.0), tails=left(1, 2.0, 1.0))
    assert size_of(oracle).kind is DivergenceKind.ORDER


def test_runs_that_can_not_be_had_again_have_no_size(tmp_path: Path) -> None:
    oracle = oracle_of(tmp_path, heads=left(0, 1.0), tails=left(1, 1.0))
    divergence = size_of(oracle)
    assert divergence.size is None
    assert divergence.detail == "the two runs could not be had again to measure by how much"


def test_a_batch_of_other_samples_is_the_samplers_doing(tmp_path: Path) -> None:
    def batch(number: int) -> Left:
        drawn = Row(0, Phase.DATA, Role.CONTEXT, "loader.indices", digest=bytes([number]) * 16)
        return Left(rows=(drawn, Row(0, Phase.DATA, name="batch.0", digest=bytes([number]) * 16)))

    divergence = size_of(oracle_of(tmp_path, heads=batch(0), tails=batch(1)))
    assert divergence.kind is DivergenceKind.ORDER
    assert divergence.detail == "the sampler hands out other indices"


def test_the_parameters_drift_by_as_much_as_values_tell(tmp_path: Path) -> None:
    def parameter(step: int, name: str, number: int) -> Row:
        return Row(step, Phase.OPTIMIZER, name=f"param.{name}", digest=bytes([number]) * 16)

    def trained(number: int, **values: float) -> Left:
        after = [parameter(1, name, number) for name in ("net.a", "net.b", "head.w")]
        keys = {name: (1, int(Phase.OPTIMIZER), f"param.net.{name}", 0) for name in values}
        return Left(
            rows=(parameter(0, "net.a", 0), *after),
            values={keys[name]: (value,) for name, value in values.items()},
        )

    oracle = oracle_of(tmp_path, heads=trained(1, a=1.0, b=2.0), tails=trained(2, a=1.5, b=2.25))
    drift = size_of(oracle).drift
    assert drift is not None
    assert drift.steps == (0, 1)
    assert [(layer.name, layer.differing, layer.max_abs) for layer in drift.layers] == [
        ("net", (0, 2), (None, 0.5)),
        ("head", (0, 1), (None, None)),
    ]
    difference = part(oracle.trials["t00"], oracle.trials["t01"])
    assert difference is not None
    narrowed = replace(difference, narrowed=True)
    assert measure({ID: narrowed}, oracle.as_oracle)[ID].drift is None


def test_a_line_stands_among_those_around_it(tmp_path: Path) -> None:
    file = tmp_path / "train.py"
    file.write_text("".join(f"line {number}\n" for number in range(1, 21)))
    location = located(str(file), 2, None, "line 2")
    assert location.excerpt is not None
    assert location.excerpt.first == 1
    assert location.excerpt.lines == ("line 1", "line 2", "line 3", "line 4", "line 5")
    assert located(str(file), 2, None, "line of old").excerpt is None
    assert located(str(file), 40, None, "line 40").excerpt is None
    assert located(str(tmp_path / "gone.py"), 2, None, "line 2").excerpt is None


# What a finding says


@pytest.fixture
def oracle(tmp_path: Path) -> FakeOracle:
    return oracle_of(tmp_path, heads=left(0, 1.0), tails=left(1, 2.0), edge=left(1, 2.0))


BROKE = Judgement(
    id=ID,
    status="broke",
    levels=(level("tails", "t01"), level("edge", "t02")),
    confidence="proven",
    pair=("t00", "t01"),
)


def said(oracle: FakeOracle, judgement: Judgement, source: Source = SOURCE, **more: Any) -> Any:
    more = {"diverging": None, "divergence": None, **more}
    verdict = read(source, judgement, Facts(), oracle.trials)
    return finding(source, judgement, verdict, Facts(), trials=oracle.trials, **more)


def test_levels_that_agree_are_named(oracle: FakeOracle) -> None:
    result: SourceResult = said(oracle, BROKE, measured=("2 times as slow",))
    assert (result.status, result.confidence) == (SourceStatus.BROKE, Confidence.PROVEN)
    assert (result.title, result.reason) == ("A coin decides", "the loss follows the coin")
    assert result.evidence == ("tails and edge agree; heads differs", "2 times as slow")


def test_levels_that_all_differ(tmp_path: Path) -> None:
    oracle = oracle_of(tmp_path, heads=left(0), tails=left(1), edge=left(2))
    assert said(oracle, BROKE).evidence == ("heads, tails and edge differ from each other",)


def test_a_race_is_counted(oracle: FakeOracle) -> None:
    result = said(oracle, replace(BROKE, race=(2, 3)))
    assert result.evidence == ("2 of 3 runs differ from the pinned one (heads)",)


def test_a_cause_of_several_sources_names_the_others(oracle: FakeOracle) -> None:
    result = said(oracle, replace(BROKE, together={ID: "tails", "clock": "later"}))
    assert result.reason == "only together with clock: the loss follows the coin"
    assert result.together == ("clock",)


def test_losses_carry_their_levels(tmp_path: Path) -> None:
    oracle = oracle_of(
        tmp_path,
        heads=replace(left(0), facts=Facts(losses=(3.0, 2.0))),
        tails=replace(left(1), facts=Facts(losses=(3.0, 1.0))),
    )
    diverging = part(oracle.trials["t00"], oracle.trials["t01"])
    result = said(oracle, replace(BROKE, levels=BROKE.levels[:1]), diverging=diverging)
    assert [(curve.label, curve.values) for curve in result.losses] == [
        ("heads", (3.0, 2.0)),
        ("tails", (3.0, 1.0)),
    ]


def test_a_line_that_the_source_knows_is_its_cause(tmp_path: Path) -> None:
    oracle = oracle_of(tmp_path, heads=left(0, 1.0), tails=left(1, 2.0))
    places = tuple(Place(what="it tosses", file="train.py", line=number) for number in (3, 7))
    source = replace(SOURCE, places=lambda _facts: places)
    judgement = replace(BROKE, levels=BROKE.levels[:1])
    result = said(oracle, judgement, source, divergence=size_of(oracle))
    cause = result.divergence.cause
    assert (cause.what, cause.location.file, cause.location.line) == ("it tosses", "train.py", 3)
    assert [other.location.line for other in cause.also] == [7]


# What is proven


def test_without_a_run_that_undid_it_nothing_is_proven(oracle: FakeOracle) -> None:
    fix = said(oracle, BROKE).fix
    assert (fix.summary, fix.verified) == ("Toss no coin", False)
    assert fix.proof == "no run has tried this fix"


def test_the_pinned_level_proves_the_cause_and_the_fix_only_where_it_is_the_fix(
    oracle: FakeOracle,
) -> None:
    pinned = replace(BROKE, undone="pin")
    fix = said(oracle, pinned).fix
    assert not fix.verified
    assert fix.proof == (
        "cause proven: with coin-toss pinned (heads) the runs agree bit for bit; no run has tried this fix"
    )
    fix = said(oracle, pinned, replace(SOURCE, pinned_by_fix=True)).fix
    assert fix.verified
    assert fix.proof == "fix verified: with it (coin-toss: heads) the runs agree bit for bit"


def test_a_removal_proves_the_cause(oracle: FakeOracle) -> None:
    removed = oracle.trial({ID: "edge"}, Watch())
    judgement = replace(BROKE, undone="removal", removal_pair=(removed.id, removed.id))
    assert said(oracle, judgement).fix.proof == (
        "cause proven: both runs of the pair, with coin-toss: edge, agree bit for bit; no run has tried this fix"
    )


def test_where_the_removal_undid_nothing_the_fix_is_to_pin(oracle: FakeOracle) -> None:
    source = replace(SOURCE, pinned_fix=lambda _facts: Fix(summary="Glue it", snippet=""))
    judgement = replace(BROKE, undone="pin", removal_pair=("t01", "t02"))
    assert said(oracle, judgement, source).fix.summary == "Glue it"
    assert said(oracle, BROKE, source).fix.summary == "Toss no coin"


EDIT = Proposal(file="train.py", text="", summary="Call heads()", diff="-toss()\n+heads()")


@pytest.mark.parametrize(
    ("agreed", "summary", "verified", "proof"),
    [
        (
            True,
            "Call heads()",
            True,
            "fix verified: with this edit both runs of the pair agree bit for bit",
        ),
        (
            None,
            "Call heads()",
            False,
            "the edit was not run, for trials would write to your own files",
        ),
        (
            False,
            "Toss no coin",
            False,
            "no run has tried this fix; an edit of train.py at the line to blame alone was tried, and is not enough",
        ),
    ],
)
def test_an_edit_is_shown_as_far_as_it_was_tried(
    oracle: FakeOracle, agreed: bool | None, summary: str, verified: bool, proof: str
) -> None:
    fix = said(oracle, BROKE, tried=Tried(proposal=EDIT, agreed=agreed)).fix
    assert (fix.summary, fix.verified, fix.proof) == (summary, verified, proof)


# Where nothing was found


def test_a_source_that_held_has_neither_fix_nor_confidence(oracle: FakeOracle) -> None:
    result = said(oracle, replace(BROKE, status="held", confidence=None))
    assert result.status is SourceStatus.HELD
    assert result.reason == "no coin was tossed"
    assert (result.fix, result.confidence, result.evidence) == (None, None, ())


def test_a_level_that_failed_is_named_with_what_it_raised(tmp_path: Path) -> None:
    failed = Left(status="crashed", facts=Facts(failure=Failure(what="ZeroDivisionError: by 0")))
    oracle = oracle_of(tmp_path, heads=left(0), tails=failed)
    judgement = Judgement(id=ID, status="error", levels=(level("tails", "t01", diverged=None),))
    result = said(oracle, judgement)
    assert result.status is SourceStatus.ERROR
    assert result.reason == "the run at 'tails' failed: ZeroDivisionError: by 0"


def test_a_process_that_died_is_told_by_how_it_ended(tmp_path: Path) -> None:
    failed = Left(status="crashed", exit="was killed by SIGSEGV")
    oracle = oracle_of(tmp_path, heads=left(0), tails=failed)
    judgement = Judgement(id=ID, status="error", levels=(level("tails", "t01", diverged=None),))
    assert said(oracle, judgement).reason == (
        "the run at 'tails' failed: the process was killed by SIGSEGV"
    )


@pytest.mark.parametrize(
    ("note", "reason"),
    [(None, "the audit ended before it"), ("no coin is at hand", "no coin is at hand")],
)
def test_what_was_not_tried_is_no_success(
    oracle: FakeOracle, note: str | None, reason: str
) -> None:
    result = said(oracle, Judgement(id=ID, status="untested", note=note))
    assert (result.status, result.reason) == (SourceStatus.NOT_EXERCISED, reason)


def test_what_could_not_be_pinned_is_suspected(oracle: FakeOracle) -> None:
    result = said(oracle, Judgement(id=ID, status="broke", unpinned=True))
    assert (result.status, result.confidence) == (SourceStatus.BROKE, Confidence.SUSPECTED)
    assert result.reason == (
        "two runs with everything pinned differ, and this could not be pinned in them"
    )
