"""Threads and the tasks of pools run in the order that the level says, and nobody waits for ever."""

from __future__ import annotations

import concurrent.futures
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from repro_audit.experiment.judging import STEADY_RELEASED
from repro_audit.facts import Facts
from repro_audit.sources import _threads, thread_timing
from repro_audit.sources._threads import Schedule, scheduled
from tests.auditing import check, write_target
from tests.planted import Program, audit, factor

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("shared_interpreters")


def schedule(*, last_first: bool) -> Schedule:
    return Schedule(last_first=last_first, began=lambda: None)


@pytest.mark.parametrize("last_first", [False, True])
def test_tasks_run_and_are_yielded_in_order(last_first: bool) -> None:
    ran: list[int] = []

    def task(number: int) -> int:
        ran.append(number)
        return number

    with scheduled(schedule(last_first=last_first), gated=True), ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(task, number) for number in range(8)]
        yielded = [job.result() for job in concurrent.futures.as_completed(jobs)]
        mapped = list(pool.map(str, range(4)))
    assert ran == ([3, 2, 1, 0, 7, 6, 5, 4] if last_first else list(range(8)))
    assert yielded == (list(reversed(range(8))) if last_first else list(range(8)))
    assert mapped == ["0", "1", "2", "3"]


@pytest.mark.parametrize("last_first", [False, True])
def test_threads_that_share_a_queue(last_first: bool) -> None:
    rows: queue.Queue[int] = queue.Queue()
    with scheduled(schedule(last_first=last_first), gated=True):
        threads = [threading.Thread(target=rows.put, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [rows.get() for _ in threads] == ([2, 1, 0] if last_first else [0, 1, 2])
    assert "run" not in vars(threads[0])


def test_threads_that_wait_for_each_other_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_threads, "_BUSY", 0.1)
    barrier = threading.Barrier(2)
    with scheduled(schedule(last_first=False), gated=True):
        with ThreadPoolExecutor(2) as pool:
            jobs = [pool.submit(barrier.wait) for _ in range(2)]
            assert {job.result() for job in jobs} == {0, 1}
        one, other = (threading.Thread(target=barrier.wait) for _ in range(2))
        one.start()
        other.start()
        one.join()
        other.join()


def test_errors_and_timeouts_are_the_programs() -> None:
    with scheduled(schedule(last_first=False), gated=True), ThreadPoolExecutor(1) as pool:
        failed = pool.submit(int, "x")
        with pytest.raises(ValueError, match="invalid literal"):
            failed.result()
        never: concurrent.futures.Future[None] = concurrent.futures.Future()
        with pytest.raises(concurrent.futures.TimeoutError):
            list(concurrent.futures.as_completed([never], timeout=0))


def test_everything_is_put_back() -> None:
    def patched() -> tuple[object, ...]:
        futures = concurrent.futures
        return threading.Thread.start, ThreadPoolExecutor.submit, futures.as_completed

    before = patched()
    with scheduled(schedule(last_first=False), gated=True):
        assert set(patched()).isdisjoint(before)
    assert patched() == before


def test_a_program_without_threads_is_not_exercised() -> None:
    assert thread_timing.levels(Facts()) == "no thread was seen to start"
    assert not isinstance(thread_timing.levels(Facts(survey={"thread-timing": ["x:1"]})), str)


def test_a_forced_order_convicts_though_its_runs_agree() -> None:
    program = Program(culprits=frozenset({("threads", "v0")}))
    forced = audit(program, [factor("threads", race=True, forced=True)]).judgements["threads"]
    assert (forced.status, forced.confidence, forced.undone) == ("broke", "proven", "pin")
    assert forced.race is not None
    assert forced.race[0] == forced.race[1] > 1
    steady = audit(program, [factor("threads", race=True)]).judgements["threads"]
    assert (steady.status, steady.note) == ("held", STEADY_RELEASED)


def test_two_causes_are_named_with_the_line_that_starts_threads(tmp_path: Path) -> None:
    body = """
    from concurrent.futures import ThreadPoolExecutor, as_completed
    import numpy as np
    import torch
    from torch import nn

    def build(seed):
        torch.manual_seed(seed)
        with ThreadPoolExecutor(2) as pool:
            jobs = [pool.submit(torch.full, (2, 3), number / 4) for number in range(4)]
            batches = [(job.result(), torch.ones(2, 1)) for job in as_completed(jobs)]
        shift = float(np.random.rand())
        return nn.Linear(3, 1), [(x + shift, y) for x, y in batches]
    """
    program = write_target(tmp_path, body)
    only = ("thread-timing", "numpy-rng", "object-address", "torch-rng")
    options = [option for name in only for option in ("--only", name)]
    found = check(
        "train.py:build",
        "--steps",
        "2",
        *options,
        cwd=program.parent,
        saved=tmp_path / "report.json",
    )
    assert found.broke == {"thread-timing", "numpy-rng"}
    assert "train.py:10" in found.terminal
