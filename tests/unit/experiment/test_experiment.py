"""The experiment against programs whose causes are planted: the right blame, and never a false one.

Each promise is a function of a program and a result that lists what is wrong. `one_at_a_time`, the search that
anybody would write first, breaks every one of them: so none of them holds by itself.
"""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from repro_audit.experiment import (
    Factor,
    Judgement,
    LevelOutcome,
    Outcome,
    Result,
    Run,
    trials_if_all_hold,
)
from repro_audit.experiment.judging import STEADY_RELEASED
from tests.planted import (
    Level,
    Program,
    audit,
    baseless,
    factor,
    interactions,
    levels_of,
    many_factors,
    most_trials,
    one_at_a_time,
    overlooked,
    unproven,
    wrongly_blamed,
)

# Clean programs


@given(factors=many_factors())
def test_a_clean_program_is_cleared(factors: list[Factor]) -> None:
    program = Program()
    result = audit(program, factors)
    assert {each.status for each in result.judgements.values()} <= {"held"}
    assert (interactions(result), result.unexplained, result.faithful) == ([], None, True)
    assert baseless(program, result) == []
    assert sum(program.batches) == trials_if_all_hold(factors, runs=3)
    assert all(
        level.diverged is False for each in result.judgements.values() for level in each.levels
    )


TWELVE = [
    *(factor(f"rerun{number}") for number in range(5)),
    factor("hash-seed", interpreters=("v0",)),
    factor("race", race=True),
    *(factor(f"setting{number}", scope="settings") for number in range(3)),
    *(factor(f"portable{number}", scope="portable") for number in range(2)),
]


def test_a_clean_program_takes_a_handful_of_trials_in_two_batches() -> None:
    program = Program()
    audit(program, TWELVE)
    assert program.batches == [1, 4]
    settings_run = [run.setting for run, _ in program.trials.values()]
    assert all("hash-seed" in setting for setting in settings_run[1:])  # one warm interpreter


def test_a_culprit_takes_more_trials_than_were_foreseen() -> None:
    program = Program(culprits=frozenset({("rerun1", "v0")}))
    audit(program, TWELVE)
    assert sum(program.batches) > trials_if_all_hold(TWELVE, runs=3) == 5


def test_one_at_a_time_takes_more() -> None:
    program = Program()
    one_at_a_time(TWELVE, program)
    assert len(program.trials) > 12


# Plain culprits


@given(data=st.data(), factors=many_factors())
def test_independent_culprits_are_blamed_and_nobody_else(
    data: st.DataObject, factors: list[Factor]
) -> None:
    levels = levels_of(factors)
    culprits = data.draw(st.sets(st.sampled_from(levels), max_size=6)) if levels else set()
    program = Program(culprits=frozenset(culprits))
    result = audit(program, factors)
    guilty = {name for name, _ in culprits}
    assert wrongly_blamed(result, guilty) == set()
    assert overlooked(result, guilty) == set()
    assert unproven(result) == set()
    assert baseless(program, result) == []
    assert (interactions(result), result.unexplained, result.faithful) == ([], None, True)
    seen = {
        (name, level.level)
        for name, each in result.judgements.items()
        for level in each.levels
        if level.diverged
    }
    assert seen == culprits
    assert len(program.trials) <= most_trials(factors, len(culprits))


def test_the_guards_notice_what_they_guard_against() -> None:
    """Twin of all properties: a wrong blame, an oversight, a baseless and an unproven conviction show."""
    program = Program(culprits=frozenset({("a", "v0")}))
    result = audit(program, [factor("a"), factor("b")])
    assert wrongly_blamed(result, set()) == {"a"}
    assert overlooked(result, {"a", "b"}) == {"b"}
    program = Program(culprits=frozenset({("a", "v0")}))
    naive = one_at_a_time([factor("a"), factor("b")], program)
    assert baseless(program, naive) == ["a: proven without a repeat or a pinned run"]
    assert unproven(audit(program, [factor("a")], runs=1)) == set()
    shuffled = Result(
        judgements={
            "a": Judgement(
                id="a",
                status="broke",
                confidence="suspected",
                pair=("t00", "t00"),
                repeat="t00",
                levels=(LevelOutcome(level="v1", diverged=False, trial="t00", status="ok"),),
            )
        }
    )
    assert unproven(shuffled) == {"a"}
    assert len(baseless(program, shuffled)) == 3


@pytest.mark.parametrize(
    ("culprits", "trials"),
    [((), 6), (("setting1",), 14), (("rerun1",), 14), (("rerun1", "hash-seed", "setting1"), 21)],
)
def test_how_many_trials_twelve_factors_take(culprits: tuple[str, ...], trials: int) -> None:
    program = Program(culprits=frozenset((name, "v0") for name in culprits))
    result = audit(program, TWELVE)
    assert overlooked(result, set(culprits)) == wrongly_blamed(result, set(culprits)) == set()
    assert len(program.trials) <= trials


def test_a_conviction_holds_with_everything_else_pinned() -> None:
    """On top of another hash seed the interpreter is warm; the pair is from one that is pinned."""
    program = Program(culprits=frozenset({("b", "v0")}))
    result = audit(program, [factor("hash", interpreters=("v0",)), factor("b", scope="settings")])
    pair = result.judgements["b"].pair
    assert pair is not None
    assert program.trials[pair[1]][0].setting == {"b": "v0"}


NEEDY = (
    factor("hash", "v0", "v1", interpreters=("v0", "v1")),
    factor("b", "v0", "v1"),
    factor("c", "v0", "v1"),
    factor("isa", "v0", "rare", scope="portable", alone=True, interpreters=("rare",)),
)
"""Two of them need interpreters of their own."""


@pytest.mark.parametrize("culprits", [(), (("b", "v0"),), (("b", "v0"), ("isa", "v0"))])
def test_levels_that_need_an_interpreter_each_share_one(culprits: tuple[Level, ...]) -> None:
    program = Program(culprits=frozenset(culprits))
    result = audit(program, NEEDY)
    guilty = {name for name, _ in culprits}
    assert overlooked(result, guilty) == wrongly_blamed(result, guilty) == set()
    needed = {"hash": ("v0", "v1"), "isa": ("rare",)}
    interpreters = {
        tuple(
            run.setting.get(name)
            for name, levels in needed.items()
            if run.setting.get(name) in levels
        )
        for run, _ in program.trials.values()
    }
    assert interpreters - {()} == {("v0",), ("v1", "rare")}


@pytest.mark.parametrize("culprit", [("hash", "v1"), ("isa", "rare")])
def test_what_breaks_in_a_shared_interpreter_is_told_apart(culprit: Level) -> None:
    result = audit(Program(culprits=frozenset({culprit})), NEEDY)
    guilty = {culprit[0]}
    assert overlooked(result, guilty) == wrongly_blamed(result, guilty) == set()
    assert result.judgements[culprit[0]].confidence == "proven"


def test_parts_are_run_only_to_explain_a_divergence() -> None:
    parted = factor("b", scope="settings", parts={"v0": ("part0", "part1")})
    clean = Program()
    judgement = audit(clean, [parted]).judgements["b"]
    assert [level.level for level in judgement.levels] == ["v0"]
    assert all("part" not in run.setting.get("b", "") for run, _ in clean.trials.values())

    program = Program(culprits=frozenset({("b", "v0"), ("b", "part1")}))
    judgement = audit(program, [parted, factor("c", scope="settings")]).judgements["b"]
    assert judgement.status == "broke"
    assert judgement.confidence == "proven"
    diverged = {level.level: level.diverged for level in judgement.levels}
    assert diverged == {"v0": True, "part0": False, "part1": True}


def test_a_part_alone_convicts_nobody() -> None:
    parted = factor("b", scope="settings", parts={"v0": ("part",)})
    result = audit(Program(culprits=frozenset({("b", "part")})), [parted])
    assert result.judgements["b"].status == "held"


# Conjunctions


@st.composite
def pairs_within_a_round(
    draw: st.DrawFn, factors: list[Factor]
) -> tuple[tuple[frozenset[Level], ...], set[str]]:
    """Draw up to three pairs of levels that are varied in the same round of the same pool."""
    grouped = [each for each in factors if not each.levels.alone and not each.levels.race]
    pools = [
        [each for each in grouped if each.scope == "rerun"],
        [each for each in grouped if each.scope != "rerun"],
    ]
    candidates = [
        frozenset({(one.id, f"v{index}"), (other.id, f"v{index}")})
        for pool in pools
        for one, other in combinations(pool, 2)
        for index in range(min(len(one.levels.varied), len(other.levels.varied)))
    ]
    chosen = draw(st.sets(st.sampled_from(candidates), max_size=3)) if candidates else set()
    return tuple(sorted(chosen, key=sorted)), {name for pair in chosen for name, _ in pair}


@given(data=st.data(), factors=many_factors())
def test_pairs_that_break_only_together_are_found(
    data: st.DataObject, factors: list[Factor]
) -> None:
    pairs, members = data.draw(pairs_within_a_round(factors))
    others = [level for level in levels_of(factors) if level[0] not in members]
    culprits = data.draw(st.sets(st.sampled_from(others), max_size=2)) if others else set()
    program = Program(conjunctions=pairs, culprits=frozenset(culprits))
    result = audit(program, factors)
    guilty = members | {name for name, _ in culprits}
    assert wrongly_blamed(result, guilty) == set()
    assert overlooked(result, guilty) == set()
    assert unproven(result) == set()
    assert baseless(program, result) == []
    assert result.unexplained is None
    for name in members:
        together = result.judgements[name].together
        assert together is not None
        assert frozenset(together.items()) in pairs


def test_a_pair_of_different_scopes_is_found() -> None:
    together = {"hash": "v0", "workers": "2"}
    factors = [
        factor("hash"),
        factor("a"),
        factor("b", scope="settings"),
        factor("workers", "0", "2", scope="settings", masks_others=("0",)),
    ]
    program = Program(conjunctions=(frozenset(together.items()),))
    result = audit(program, factors)
    assert interactions(result) == [together]
    assert overlooked(result, set(together)) == wrongly_blamed(result, set(together)) == set()
    assert unproven(result) == set()


def test_a_level_that_hides_others_would_overlook_it() -> None:
    program = Program(conjunctions=(frozenset({("hash", "v0"), ("workers", "2")}),))
    factors = [factor("hash"), factor("workers", "0", "2", scope="settings")]
    assert interactions(audit(program, factors)) == []


def test_what_acts_with_the_base_may_act_with_others_too() -> None:
    pairs = (("f00", "f01"), ("f01", "f02"))
    together = tuple(frozenset((name, "v0") for name in pair) for pair in pairs)
    factors = [factor("f00", interpreters=("v0",)), factor("f01"), factor("f02")]
    result = audit(Program(conjunctions=together), factors)
    assert overlooked(result, {"f00", "f01", "f02"}) == set()


def test_what_acts_with_the_base_may_act_with_others_at_another_level() -> None:
    pairs = ((("f00", "v0"), ("f01", "v0")), (("f00", "v1"), ("f02", "v1")))
    factors = [
        factor("f00", "v0", "v1"),
        factor("f01", "v0", "v1", interpreters=("v0", "v1")),
        factor("f02", "v0", "v1"),
    ]
    result = audit(Program(conjunctions=tuple(map(frozenset, pairs))), factors)
    assert overlooked(result, {"f00", "f01", "f02"}) == set()


def test_one_at_a_time_overlooks_a_pair() -> None:
    program = Program(conjunctions=(frozenset({("a", "v0"), ("b", "v0")}),))
    assert overlooked(one_at_a_time([factor("a"), factor("b")], program), {"a", "b"}) == {"a", "b"}


def test_the_warm_interpreter_may_be_part_of_a_pair() -> None:
    together = {"hash": "v0", "b": "v0"}
    program = Program(conjunctions=(frozenset(together.items()),))
    for alone in (False, True):
        factors = [factor("hash", interpreters=("v0",)), factor("a", scope="settings")]
        factors.append(factor("b", "v0", "v1", scope="settings", alone=alone))
        result = audit(program, factors)
        assert interactions(result) == [together]
        assert wrongly_blamed(result, {"hash", "b"}) == overlooked(result, {"hash", "b"}) == set()
        assert result.judgements["b"].together == together
        program.trials.clear()


@given(size=st.integers(2, 6), threshold=st.integers(2, 4))
def test_three_or_more_may_be_needed(size: int, threshold: int) -> None:
    assume(threshold <= size)
    factors = [factor(f"f{number}") for number in range(size)]
    chosen = frozenset((each.id, "v0") for each in factors[:threshold])
    result = audit(Program(conjunctions=(chosen,)), factors)
    assert interactions(result) == [dict(sorted(chosen))]


def test_the_search_is_bounded_where_everything_acts_together() -> None:
    factors = [factor(f"f{number:02}") for number in range(12)]
    pairs = tuple(
        frozenset({(one.id, "v0"), (other.id, "v0")}) for one, other in combinations(factors, 2)
    )
    program = Program(conjunctions=pairs)
    result = audit(program, factors)
    found = interactions(result)
    assert 1 <= len(found) <= 5
    assert all(frozenset(setting.items()) in pairs for setting in found)
    assert len(program.trials) < 150


# Races


@given(
    data=st.data(),
    factors=many_factors(),
    often=st.sampled_from([0.2, 0.5, 0.8]),
    variants=st.integers(1, 3),
    seed=st.integers(0, 10**6),
)
def test_a_race_is_blamed_on_nobody_else(
    data: st.DataObject, factors: list[Factor], often: float, variants: int, seed: int
) -> None:
    factors = [*factors, factor("racer", race=True)]
    levels = levels_of(factors)
    culprits = data.draw(st.sets(st.sampled_from(levels), max_size=2)) if levels else set()
    program = Program(
        races={"racer": often}, variants=variants, seed=seed, culprits=frozenset(culprits)
    )
    result = audit(program, factors)
    guilty = {"racer", *(name for name, _ in culprits)}
    assert wrongly_blamed(result, guilty) == set()
    assert overlooked(result, guilty - {"racer"}) == set()
    assert baseless(program, result) == []
    racer = result.judgements["racer"]
    assert racer.race is not None
    assert racer.race[1] >= 3
    if not racer.note:
        assert (racer.status == "broke") == (racer.race[0] > 0)
    won = [trial for trial, (_, outcome) in program.trials.items() if "race" in str(outcome.digest)]
    if won and not culprits and not racer.note:
        assert racer.status == "broke" or result.unexplained is not None
    if racer.note == STEADY_RELEASED:
        lost = [run for run, outcome in program.trials.values() if outcome.digest == ""]
        assert not any("racer" in run.setting for run in lost)


@pytest.mark.parametrize("seed", range(12))
def test_a_race_that_shows_only_in_company_is_not_blamed_on_the_company(seed: int) -> None:
    class Shy(Program):
        def _outcome(self, trial: str, run: Run, number: int) -> Outcome:
            outcome = super()._outcome(trial, run, number)
            return replace(outcome, digest="") if len(run.setting) == 1 else outcome

    program = Shy(races={"racer": 0.3}, seed=seed)
    factors = [factor(name) for name in "abcdef"] + [factor("racer", race=True)]
    result = audit(program, factors)
    assert wrongly_blamed(result, {"racer"}) == set()
    won = any(program.diverged(trial) for trial in program.trials)
    assert won == (result.unexplained is not None)


def test_a_race_is_counted_and_proven_against_as_many_pinned_runs() -> None:
    program = Program(races={"racer": 0.5}, seed=3)
    result = audit(program, [*TWELVE[:5], factor("racer", race=True)])
    racer = result.judgements["racer"]
    assert (racer.status, racer.confidence, racer.undone) == ("broke", "proven", "pin")
    assert racer.race is not None
    differ, total = racer.race
    assert 1 < differ < total
    pinned = [run for run, _ in program.trials.values() if run.purpose == "pinned"]
    assert len(pinned) >= total


def test_a_released_level_that_is_stable_is_no_race() -> None:
    """Deterministic algorithms may compute other bits; that is no nondeterminism."""
    program = Program(races={"racer": 1.0}, variants=1)
    racer = audit(program, [factor("a"), factor("racer", race=True)]).judgements["racer"]
    assert (racer.status, racer.race) == ("held", (0, 15))
    assert racer.note is not None


def test_a_race_that_always_differs_and_never_alike_is_one() -> None:
    program = Program(races={"racer": 1.0}, variants=10**6)
    racer = audit(program, [factor("a"), factor("racer", race=True)]).judgements["racer"]
    assert (racer.status, racer.race, racer.confidence) == ("broke", (6, 6), "proven")


def test_a_level_that_is_not_deterministic_is_counted_like_a_race() -> None:
    """A factor that promised to force its outcome, and did not, needs more than one repeat."""
    always = Program(races={"a": 1.0}, variants=10**6)
    judgement = audit(always, [factor("a")]).judgements["a"]
    assert (judgement.confidence, judgement.race) == ("proven", (5, 5))
    once = Program(noisy=lambda number: number in (1, 5))
    judgement = audit(once, [factor("a")]).judgements["a"]
    assert judgement.confidence in (None, "suspected")


# Noise


@given(factors=many_factors(), fresh=st.booleans())
def test_noise_is_blamed_on_nobody(factors: list[Factor], *, fresh: bool) -> None:
    program = Program(noisy=lambda _number: True)
    result = audit(program, factors, fresh=fresh)
    assert {each.status for each in result.judgements.values()} <= {"untested"}
    assert result.faithful
    assert result.unexplained is not None
    assert program.diverged(result.unexplained[1])


@given(factors=many_factors(), every=st.integers(2, 4), phase=st.integers(0, 3))
def test_occasional_noise_proves_nothing(factors: list[Factor], every: int, phase: int) -> None:
    program = Program(noisy=lambda number: number % every == phase % every)
    result = audit(program, factors, fresh=True)
    proven = {name for name, each in result.judgements.items() if each.confidence == "proven"}
    assert proven == set()


def test_noise_that_comes_once_is_reported_unexplained() -> None:
    program = Program(noisy=lambda number: number == 2)
    result = audit(program, [factor("a"), factor("b"), factor("c"), factor("d")])
    assert result.unexplained == ("t00", "t02")
    assert wrongly_blamed(result, set()) == set()


@given(data=st.data(), factors=many_factors(), fresh=st.booleans())
def test_what_noise_does_not_reach_is_judged(
    data: st.DataObject, factors: list[Factor], *, fresh: bool
) -> None:
    levels = levels_of(factors)
    culprits = data.draw(st.sets(st.sampled_from(levels), max_size=3)) if levels else set()
    hidden = data.draw(st.sets(st.sampled_from(levels), max_size=3)) if levels else set()
    program = Program(
        noisy=lambda _number: True,
        culprits=frozenset(culprits | hidden),
        hidden=frozenset(hidden),
    )
    result = audit(program, factors, fresh=fresh)
    guilty = {name for name, _ in culprits - hidden}
    assert wrongly_blamed(result, guilty) == overlooked(result, guilty) == set()
    assert result.unexplained is not None
    for name, each in result.judgements.items():
        assert each.status == ("broke" if name in guilty else "untested")
        assert each.confidence == ("suspected" if name in guilty else None)
        assert each.narrowed == (name in guilty)
        assert name in guilty or each.note


@given(factors=many_factors(), every=st.integers(2, 3), seed=st.integers(0, 1000))
def test_what_agrees_by_luck_convicts_nobody(factors: list[Factor], every: int, seed: int) -> None:
    """Noise of few values, which pinned runs may happen to have in common."""

    class Lucky(Program):
        def _outcome(self, trial: str, run: Run, number: int) -> Outcome:
            outcome = super()._outcome(trial, run, number)
            chance = random.Random(f"{seed} {number}").randrange(every)
            return replace(outcome, digest=f"{outcome.digest}; luck {chance}; noise {number}")

    assert wrongly_blamed(audit(Lucky(), factors), set()) == set()


def test_what_could_not_be_pinned_is_suspected_and_nobody_else() -> None:
    program = Program(
        noisy=lambda _number: True,
        unpinned=frozenset({"threads"}),
        culprits=frozenset({("b", "v0")}),
    )
    factors = [factor("threads", race=True), factor("a"), factor("b", scope="settings")]
    result = audit(program, factors)
    assert result.unexplained is None
    threads, other, culprit = (result.judgements[name] for name in ("threads", "a", "b"))
    assert (threads.status, threads.confidence, threads.unpinned) == ("broke", "suspected", True)
    assert other.status == "untested"
    assert "have in common" in str(other.note)
    assert (culprit.status, culprit.confidence) == ("broke", "suspected")


def test_an_equal_run_that_could_not_be_pinned_clears_nobody() -> None:
    class Loose(Program):
        def _outcome(self, trial: str, run: Run, number: int) -> Outcome:
            return replace(super()._outcome(trial, run, number), unpinned=frozenset({"threads"}))

    result = audit(Loose(), [factor("a"), factor("threads", race=True)])
    assert [each.status for each in result.judgements.values()] == ["held", "untested"]


def test_one_at_a_time_blames_noise() -> None:
    factors = [factor("a"), factor("b")]
    naive = one_at_a_time(factors, Program(noisy=lambda _number: True))
    assert wrongly_blamed(naive, set()) == {"a", "b"}


@given(factors=many_factors())
def test_an_unfaithful_fast_path_is_found_before_anybody_is_blamed(factors: list[Factor]) -> None:
    program = Program(unfaithful=True)
    result = audit(program, factors)
    assert not result.faithful
    assert result.unexplained is None
    assert {each.status for each in result.judgements.values()} <= {"untested"}
    assert len(program.trials) <= 6

    again = audit(program, factors, fresh=True)
    assert again.faithful
    assert {each.status for each in again.judgements.values()} <= {"held"}
