"""What a report says of the trials, the machine and the data, beside its sources."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from repro_audit.findings import summary
from repro_audit.isolation.sandbox import Isolation
from repro_audit.storage.facts import Facts, Failure
from repro_audit.target import Target
from repro_audit.trial.request import Watch
from tests.fake_trials import FakeOracle, Left
from tests.traces import Row

if TYPE_CHECKING:
    from pathlib import Path

    from repro_audit.trial.oracle import Trial


def floor(directory: Path, facts: Facts | None = None, **left: object) -> Trial:
    answer = Left(rows=(Row(),), facts=facts or Facts(), **left)  # type: ignore[arg-type]  # fields of Left
    return FakeOracle(directory, lambda _setting, _watch: answer).trial({}, Watch())


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (Facts(), ""),
        (Facts(steps=4), "4 steps"),
        (
            Facts(steps=4, batches_seen=4, batches_per_epoch=8, samples_seen=16, samples_total=32),
            "4 batches (an epoch has 8), 16 of 32 samples, 4 steps",
        ),
        (Facts(steps=4, epochs=1), "4 steps, 1 epoch"),
        (
            Facts(steps=4, trains_itself=True, loading_seconds=2.34),
            "4 steps, the first one after 2.3 s; --steps 16 looks further",
        ),
        (Facts(steps=4, epochs=2), "4 steps, 2 epochs"),
        (Facts(steps=4, trains_itself=True), "4 steps; --steps 16 looks further"),
        (Facts(steps=4, trains_itself=True, ended=True), "4 steps: the whole program"),
        # A little beyond the end of an epoch.
        (
            Facts(steps=4, trains_itself=True, batches_seen=4, batches_per_epoch=8),
            "4 batches (an epoch has 8), 4 steps; --steps 10 looks further",
        ),
    ],
)
def test_how_much_was_seen(facts: Facts, words: str) -> None:
    assert summary.coverage(facts) == words


def test_a_target_that_raised_is_told_in_its_own_words(tmp_path: Path) -> None:
    failure = Failure(what="ValueError: no", traceback="line 3", why="so", next_step="write it")
    told = summary.failure(floor(tmp_path, Facts(failure=failure), status="crashed"))
    assert (told.what, told.traceback, told.why, told.next_step) == (
        "ValueError: no",
        "line 3",
        "so",
        "write it",
    )


def test_a_target_that_died_is_told_by_how_it_ended(tmp_path: Path) -> None:
    told = summary.failure(floor(tmp_path, status="crashed", exit="was killed by SIGSEGV"))
    assert told.what == "the target's process was killed by SIGSEGV before its training was over"


def test_a_first_run_that_took_too_long_says_nothing(tmp_path: Path) -> None:
    slow = floor(tmp_path / "slow", status="timeout", exit="took more than 5 s")
    assert summary.timed_out(slow) == (
        "the first run took more than 5 s; give it more time, or fewer --steps"
    )
    assert summary.timed_out(floor(tmp_path / "ok")) is None


def test_the_machine() -> None:
    seen = summary.environment(Facts(torch="2.13.0", threads=2, cuda="A, B"))
    assert (seen.torch, seen.threads) == ("2.13.0", 2)
    assert seen.devices == ("cpu", "cuda:0 A", "cuda:1 B")
    assert summary.environment(Facts()).devices == ("cpu",)


def test_a_record_of_a_trial(tmp_path: Path) -> None:
    trial = floor(tmp_path)
    record = summary.record(trial)
    assert (record.id, record.status.value, record.seconds) == ("t00", "ok", 1.0)
    assert record.digest == trial.digest


PROGRAM = """\
import torch

def main():
    if seen("model.pt"):
        torch.load("model.pt")
    torch.save(1, "model.pt")
"""


def test_files_that_a_longer_run_would_write_and_read(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(PROGRAM, encoding="utf-8")
    target = Target(spec="train.py:main", function="main", path="train.py")
    facts = Facts(steps=4)
    (hint,) = summary.further(floor(tmp_path / "some", facts), target, tmp_path)
    assert hint.startswith("with --steps 16 train.py:6 ")
    assert hint.endswith(", but not in the first 4 steps; a second run may differ then")
    whole = Facts(steps=4, ended=True)
    assert summary.further(floor(tmp_path / "whole", whole), target, tmp_path) == ()


@pytest.mark.parametrize("reason", ["", "writes below data are shared"])
def test_what_the_verdict_does_not_cover(tmp_path: Path, reason: str) -> None:
    isolation = Isolation(
        kind="overlay", scratch=tmp_path, reason=reason, root=tmp_path, cwd=tmp_path
    )
    seen = floor(tmp_path / "seen", Facts(torch="2.13.0"))
    assert summary.notes(seen, isolation) == ((reason,) if reason else ())
    unseen = floor(tmp_path / "unseen", Facts(torch="2.13.0", unseen=("sparse", "nested")))
    assert summary.notes(unseen, isolation)[-1] == (
        "not compared, since the contents can not be read: nested, sparse"
    )
