"""Whose failure it is when the first trial fails, with trials that nobody runs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from repro_audit.errors import InternalError
from repro_audit.storage.facts import Facts, Failure
from repro_audit.target import Target
from repro_audit.trial.first_trial import settle
from repro_audit.trial.oracle import Trial, TrialOracle
from repro_audit.trial.runner import Ended
from tests.trials import lab

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from repro_audit.experiment import RunStatus
    from tests.sharing import Interpreters

NAMES = ("clock", "hash-seed", "os-entropy", "thread-timing", "file-order")


def trial(status: RunStatus, what: str = "", *, seconds: float = 2.0, idle: bool = False) -> Trial:
    failure = Failure(what=what, whole=f"whole of {what}", stopped_training=status == "no-steps")
    ended = Ended(
        status=status,
        seconds=seconds,
        output="",
        facts=None if status == "timeout" else Facts(failure=failure if what else None),
        exit="was stopped",
        stacks="where it stands" if status == "timeout" else "",
        idle=idle,
    )
    return Trial(id="t", setting={}, directory=Path(), ended=ended, digest=None, root="")


TARGET = Target(spec="train.py:build", function="build", path="train.py")
TRAINS = trial("ok")
FAILS = trial("crashed", "its error")


@dataclass(kw_only=True)
class Fake:
    """A program, by what it does under the audit."""

    target: Target = TARGET
    plain: Trial = TRAINS
    probed: Trial = TRAINS
    pinned: Callable[[Sequence[str]], Trial] = lambda _: TRAINS
    sources: tuple[str, ...] = NAMES
    left: dict[str, str] = field(default_factory=dict)
    runner: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(timeout=60.0))

    def try_as_is(self, *, probed: bool) -> Trial:
        return self.probed if probed else self.plain

    def try_pinned(self, names: Sequence[str]) -> Trial:
        return self.pinned(names)

    def leave(self, name: str, why: str) -> None:
        self.sources = tuple(each for each in self.sources if each != name)
        self.left[name] = why

    def begin_again(self) -> Trial:
        return self.pinned(self.sources)

    def settle(self, first: Trial) -> Trial:
        settled = settle(cast("TrialOracle", self), first)
        assert self.runner.timeout == 60
        return settled


def fails_with(*culprits: str) -> Callable[[Sequence[str]], Trial]:
    return lambda names: FAILS if set(culprits) & set(names) else TRAINS


def test_a_program_that_fails_by_itself_is_shown_as_it_failed_by_itself() -> None:
    plain = trial("crashed", "its error, by itself")
    assert Fake(plain=plain).settle(FAILS) is plain


@pytest.mark.parametrize("first", [trial("no-steps", "never trained"), trial("timeout")])
def test_a_program_that_neither_trains_by_itself_is_taken_at_its_word(first: Trial) -> None:
    assert Fake(plain=trial(first.ended.status, "the same")).settle(first) is first


def test_to_end_without_a_step_clears_nobody_of_not_training() -> None:
    first = trial("no-steps", "never trained")
    assert Fake(plain=trial("no-steps", "counted none")).settle(first) is first


@pytest.mark.parametrize("culprit", NAMES)
def test_a_level_that_takes_what_the_program_needs_is_left_alone(culprit: str) -> None:
    fake = Fake(pinned=fails_with(culprit))
    assert fake.settle(FAILS) is TRAINS
    assert set(fake.left) == {culprit}
    assert "its error" in fake.left[culprit]


def test_so_are_two() -> None:
    fake = Fake(pinned=fails_with("clock", "file-order"))
    assert fake.settle(FAILS) is TRAINS
    assert set(fake.left) == {"clock", "file-order"}


def test_a_program_that_trains_but_under_no_pinned_level_at_all_is_our_defect() -> None:
    fake = Fake(pinned=fails_with(*NAMES))
    with pytest.raises(InternalError, match="whole of its error"):
        fake.settle(FAILS)


def test_what_the_probe_breaks_is_our_defect() -> None:
    with pytest.raises(InternalError, match="whole of a bug of ours"):
        Fake(probed=trial("crashed", "a bug of ours")).settle(FAILS)


def test_a_hang_under_the_probe_is_our_defect_and_says_where() -> None:
    hung = trial("timeout", seconds=20, idle=True)
    with pytest.raises(InternalError, match="where it stands"):
        Fake(probed=hung).settle(hung)


def test_so_is_a_loop_without_end() -> None:
    loops = trial("timeout", seconds=60)
    with pytest.raises(InternalError, match="where it stands"):
        Fake(probed=loops).settle(loops)


def test_slow_is_not_hung() -> None:
    slow = trial("timeout", seconds=20)
    settled = Fake(probed=slow).settle(slow)
    said = "was stopped; without the audit's probe it takes 2.0 s"
    assert settled == dataclasses.replace(slow, ended=dataclasses.replace(slow.ended, exit=said))


def test_a_trial_that_hangs_tells_where_each_thread_stands(
    tmp_path: Path, interpreters: Interpreters
) -> None:
    body = """
        import threading

        def waits(lock):
            with lock:
                lock.acquire()

        def build():
            threading.Thread(target=waits, args=[threading.Lock()], daemon=True).start()
            waits(threading.Lock())
    """
    with lab(tmp_path, interpreters, timeout=10) as one:
        hung = one.as_is("hangs", body)
    assert (hung.ended.status, hung.ended.idle) == ("timeout", True)
    with pytest.raises(InternalError, match="under its probe") as caught:
        Fake(probed=hung).settle(hung)
    assert caught.value.what.count("in waits") == 2
