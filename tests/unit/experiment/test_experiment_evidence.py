"""Crashes, carriers, removal and the edges: what a judgement rests on, where one level alone does not tell."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from repro_audit.experiment import Factor, Levels, Outcome, Result, Run, experiment
from tests.planted import (
    PINNED,
    REMOVED,
    Level,
    Program,
    audit,
    baseless,
    factor,
    interactions,
    levels_of,
    many_factors,
    one_at_a_time,
    overlooked,
    unproven,
    wrongly_blamed,
)

# Crashes


@given(data=st.data(), factors=many_factors())
def test_a_level_that_crashes_is_an_error_and_hides_nothing(
    data: st.DataObject, factors: list[Factor]
) -> None:
    levels = levels_of(factors)
    chosen = data.draw(st.lists(st.sampled_from(levels), max_size=4, unique=True)) if levels else []
    crashes, culprits = set(chosen[::2]), set(chosen[1::2])
    program = Program(crashes=frozenset(crashes), culprits=frozenset(culprits))
    result = audit(program, factors)
    guilty = {name for name, _ in culprits}
    assert wrongly_blamed(result, guilty) == overlooked(result, guilty) == set()
    assert baseless(program, result) == []
    for name, each in result.judgements.items():
        crashed = {level.level for level in each.levels if level.status == "crashed"}
        assert crashed == {level for owner, level in crashes if owner == name}
        assert all(level.diverged is None for level in each.levels if level.level in crashed)
        if name not in guilty:
            assert each.status == ("error" if crashed else "held")


def test_one_at_a_time_blames_a_crash() -> None:
    program = Program(crashes=frozenset({("a", "v0")}))
    assert wrongly_blamed(one_at_a_time([factor("a")], program), set()) == {"a"}


def test_levels_that_crash_only_together_are_no_divergence() -> None:
    class Fragile(Program):
        def _outcome(self, trial: str, run: Run, number: int) -> Outcome:
            if {"a", "b"} <= run.setting.keys():
                return Outcome(trial=trial, status="timeout", digest=None)
            return super()._outcome(trial, run, number)

    result = audit(Fragile(), [factor("a"), factor("b"), factor("c"), factor("d")])
    assert [each.status for each in result.judgements.values()] == ["held"] * 4
    assert (interactions(result), result.unexplained) == ([], None)
    assert "varied together" in str(result.judgements["a"].note)
    assert result.judgements["c"].note is None


# Carriers and removal

REUSE = factor("reuse", "second", scope="settings", alone=True)
DROPOUT = Factor(
    id="dropout",
    scope="settings",
    pinned=PINNED,
    levels=Levels(removal=REMOVED, judged_by=("reuse", "second")),
)


def test_what_the_carrier_held_the_carried_holds() -> None:
    program = Program()
    judgements = audit(program, [factor("a"), REUSE, DROPOUT]).judgements
    assert judgements["dropout"].status == "held"
    assert judgements["dropout"].levels == judgements["reuse"].levels


def test_the_carried_takes_the_blame_where_its_removal_mends() -> None:
    level = ("reuse", "second")
    program = Program(culprits=frozenset({level}), carried={level: "dropout"})
    judgements = audit(program, [factor("a"), REUSE, DROPOUT]).judgements
    dropout, reuse = judgements["dropout"], judgements["reuse"]
    assert (dropout.status, dropout.confidence, dropout.undone) == ("broke", "proven", "removal")
    assert dropout.pair is not None
    assert dropout.pair[1] == reuse.levels[0].trial
    assert dropout.removal_pair is not None
    settings_run = [program.trials[trial][0].setting for trial in dropout.removal_pair]
    assert settings_run == [{"dropout": REMOVED}, {"dropout": REMOVED, "reuse": "second"}]
    assert (reuse.status, reuse.blamed, reuse.pair) == ("held", "dropout", None)


def test_the_carrier_keeps_the_blame_where_the_removal_does_not_mend() -> None:
    program = Program(culprits=frozenset({("reuse", "second")}))
    judgements = audit(program, [factor("a"), REUSE, DROPOUT]).judgements
    assert judgements["dropout"].status == "held"
    assert (judgements["reuse"].status, judgements["reuse"].blamed) == ("broke", None)
    assert overlooked(one_at_a_time([REUSE, DROPOUT], program), {"dropout"}) == {"dropout"}


def test_the_carrier_keeps_the_blame_for_its_other_levels() -> None:
    both = frozenset({("reuse", "second"), ("reuse", "third")})
    program = Program(culprits=both, carried={("reuse", "second"): "dropout"})
    reuse = factor("reuse", "second", "third", scope="settings", alone=True)
    judgements = audit(program, [reuse, DROPOUT]).judgements
    assert judgements["dropout"].status == "broke"
    assert (judgements["reuse"].status, judgements["reuse"].blamed) == ("broke", None)


@pytest.mark.parametrize("crash", [("reuse", "second"), ("dropout", REMOVED)])
def test_a_carrier_or_removal_that_crashes_is_an_error(crash: Level) -> None:
    program = Program(culprits=frozenset({("reuse", "second")}), crashes=frozenset({crash}))
    judgements = audit(program, [factor("a"), REUSE, DROPOUT]).judgements
    assert judgements["dropout"].status == "error"
    assert judgements["reuse"].status == ("error" if crash[0] == "reuse" else "broke")


def test_a_carrier_that_is_missing_leaves_the_carried_untested() -> None:
    other = factor("reuse", "third", scope="settings")
    for factors in ([DROPOUT], [DROPOUT, other]):
        assert audit(Program(), factors).judgements["dropout"].status == "untested"


def test_what_can_not_be_removed_leaves_the_blame_with_the_carrier() -> None:
    program = Program(culprits=frozenset({("reuse", "second")}))
    judgements = audit(
        program, [REUSE, replace(DROPOUT, levels=replace(DROPOUT.levels, removal=None))]
    ).judgements
    assert (judgements["dropout"].status, judgements["reuse"].status) == ("untested", "broke")
    assert "nothing can be removed" in str(judgements["dropout"].note)


def test_levels_of_its_own_convict_the_carried_as_well() -> None:
    program = Program(culprits=frozenset({("dropout", "v0")}))
    own = factor("dropout", judged_by=("reuse", "second"), removal=REMOVED)
    judgements = audit(program, [own, REUSE]).judgements
    assert (judgements["dropout"].status, judgements["reuse"].status) == ("broke", "held")
    assert [level.diverged for level in judgements["dropout"].levels] == [True, False]


def test_removal_strengthens_a_conviction() -> None:
    workers = factor("workers", "0", "1", "2", scope="settings", removal="seeded, removed")
    program = Program(culprits=frozenset({("workers", "0"), ("workers", "2")}))
    judgement = audit(program, [workers, factor("a")]).judgements["workers"]
    assert (judgement.status, judgement.undone) == ("broke", "removal")
    assert judgement.removal_pair is not None
    levels = [program.trials[trial][0].setting["workers"] for trial in judgement.removal_pair]
    assert levels == ["seeded, removed", "0, seeded, removed"]


def test_a_removal_that_does_not_mend_is_not_said_to() -> None:
    workers = factor("workers", "0", removal="seeded")
    program = Program(culprits=frozenset({("workers", "0")}))
    judgement = audit(program, [workers]).judgements["workers"]
    assert (judgement.status, judgement.undone) == ("broke", "pin")
    assert judgement.removal_pair is not None


# The edges


def test_a_yardstick_is_run_once_and_never_accused() -> None:
    program = Program(culprits=frozenset({("seed", "B")}))
    result = audit(program, [factor("a"), factor("seed", "B", scope="none")])
    seed = result.judgements["seed"]
    assert (seed.status, seed.confidence, seed.undone) == ("broke", None, None)
    assert seed.pair is not None
    purposes = [run.purpose for run, _ in program.trials.values()]
    assert purposes == ["floor", "single", "single", "single", "single"]


def test_no_factors_at_all() -> None:
    program = Program()
    assert audit(program, []) == Result(judgements={})
    assert [run.purpose for run, _ in program.trials.values()] == ["floor", "pinned", "pinned"]


def test_a_factor_without_levels_is_untested() -> None:
    bare = Factor(id="bare", scope="rerun", pinned=PINNED, levels=Levels())
    assert audit(Program(), [bare]).judgements["bare"].status == "untested"


@given(runs=st.integers(1, 5), factors=many_factors(at_most=5))
def test_any_number_of_runs_convicts(runs: int, factors: list[Factor]) -> None:
    levels = levels_of(factors)
    assume(levels)
    program = Program(culprits=frozenset(levels[:1]))
    result = audit(program, factors, runs=runs)
    assert overlooked(result, {levels[0][0]}) == wrongly_blamed(result, {levels[0][0]}) == set()
    assert unproven(result) == set()


@given(data=st.data(), factors=many_factors())
def test_the_same_program_is_asked_the_same_questions(
    data: st.DataObject, factors: list[Factor]
) -> None:
    levels = levels_of(factors)
    culprits = data.draw(st.sets(st.sampled_from(levels), max_size=3)) if levels else set()
    programs = [Program(culprits=frozenset(culprits), races={"f00": 0.5}) for _ in range(2)]
    results = [audit(program, factors) for program in programs]
    assert results[0] == results[1]
    assert programs[0].trials == programs[1].trials


@pytest.mark.parametrize("culprits", [frozenset[Level](), frozenset({("a", "v0")})])
def test_fresh_means_every_trial(culprits: frozenset[Level]) -> None:
    program = Program(culprits=culprits)
    audit(program, [factor("a"), factor("b", scope="settings")], fresh=True)
    assert all(run.fresh for run, _ in program.trials.values())


def test_fresh_interpreters_are_else_left_to_the_oracle() -> None:
    program = Program(culprits=frozenset({("a", "v0")}))
    audit(program, [factor("a"), factor("b", scope="settings")])
    assert [run.fresh for run, _ in program.trials.values()].count(True) == 1


@pytest.mark.parametrize("status", ["crashed", "timeout", "no-steps"])
def test_a_floor_that_did_not_train_is_refused(status: str) -> None:
    floor = Outcome(trial="t00", status=status, digest=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="need a floor that trained"):
        experiment([], floor, Program())
