"""Threads run in the order that the level says, to the bit the same each time, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.pool import ThreadPool
from typing import TYPE_CHECKING, Any

import pytest

from repro_audit.experiment import Judgement
from repro_audit.experiment.judging import STEADY_RELEASED
from repro_audit.sources import thread_timing
from repro_audit.sources.emulation import baton as _baton
from repro_audit.sources.emulation import threads as _threads
from repro_audit.sources.emulation.threads import Schedule, scheduled
from repro_audit.storage.facts import Facts
from tests.auditing import check, write_target
from tests.planted import Program, audit, factor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from repro_audit.sources.emulation.baton import Policy

pytestmark = pytest.mark.usefixtures("shared_interpreters")

POLICIES: list[Policy] = ["first", "last", "turns"]
Log = list[str]


@contextmanager
def in_order(policy: Policy) -> Iterator[Schedule]:
    schedule = Schedule(policy)
    with scheduled(schedule):
        yield schedule


def joined(*targets: Callable[[], object]) -> None:
    threads = [threading.Thread(target=target, daemon=True) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# Programs: each writes down what happened when. Their orders by policy are told at the end.


def tasks_of_a_pool(log: Log) -> None:
    def task(number: int) -> int:
        log.append(f"{number}")
        return number

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(task, number) for number in range(6)]
        log += [f"={job.result()}" for job in concurrent.futures.as_completed(jobs)]
        assert list(pool.map(str, range(4))) == ["0", "1", "2", "3"]


def producers_on_a_queue(log: Log) -> None:
    rows: queue.Queue[str] = queue.Queue()

    def produce(name: str) -> None:
        for number in range(3):
            rows.put(f"{name}{number}")

    for name in "ab":
        threading.Thread(target=produce, args=(name,), daemon=True).start()
    log += [rows.get() for _ in range(6)]


def a_bounded_queue(log: Log) -> None:
    rows: queue.Queue[int | None] = queue.Queue(2)

    def fill() -> None:
        for number in range(6):
            log.append(f"f{number}")
            rows.put(number)
        rows.put(None)

    threading.Thread(target=fill, daemon=True).start()
    while (row := rows.get()) is not None:
        log.append(f"m{row}")


def sleepers(log: Log) -> None:
    def nap(seconds: float) -> None:
        _threads.sleep(seconds)
        log.append(f"{seconds}")

    joined(*(lambda seconds=seconds: nap(seconds) for seconds in (0.03, 0.01, 0.02)))


def a_timer(log: Log) -> None:
    timer = threading.Timer(0.02, log.append, ("timer",))
    timer.start()
    log.append("main")
    timer.join()


def locks_and_a_barrier(log: Log) -> None:
    lock, barrier = threading.RLock(), threading.Barrier(3)

    def visit(name: str) -> None:
        with lock, lock:
            log.append(name)
        barrier.wait()
        with lock:
            log.append(name.upper())

    joined(*(lambda name=name: visit(name) for name in "abc"))


def a_pool_of_multiprocessing(log: Log) -> None:
    with ThreadPool(3) as pool:
        log += [str(number) for number in pool.imap_unordered(abs, range(6))]
        log += map(str, pool.map(abs, range(3)))


def coroutines(log: Log) -> None:
    async def work() -> None:
        async def one(number: int) -> None:
            await asyncio.to_thread(log.append, f"t{number}")
            log.append(f"m{number}")

        await asyncio.gather(*(one(number) for number in range(3)))
        await asyncio.wait_for(asyncio.sleep(0.01), 5)

    asyncio.run(work())


def a_thread_that_looks_now_and_then(log: Log) -> None:
    stop, rows = threading.Event(), list[int]()

    def watch() -> None:
        while not stop.is_set():
            rows.append(0)

    thread = threading.Thread(target=watch)
    thread.start()
    while len(rows) < 3:
        _threads.sleep(0.001)
    stop.set()
    while thread.is_alive():
        pass
    log.append("over")


def pools_within_a_pool(log: Log) -> None:
    def task(number: int) -> int:
        with ThreadPoolExecutor(2) as inner:
            return sum(inner.map(abs, range(number)))

    with ThreadPoolExecutor(2) as outer:
        log += map(str, outer.map(task, range(5)))


def endless_daemons(log: Log) -> None:
    rows: queue.Queue[int] = queue.Queue()
    over: list[bool] = []

    def produce() -> None:
        while not over:
            rows.put(1)

    def tick() -> None:
        while not over:
            _threads.sleep(0.01)

    threading.Thread(target=produce, daemon=True).start()
    threading.Thread(target=tick, daemon=True).start()
    log.append(str(sum(rows.get() for _ in range(50))))
    over.append(True)


PROGRAMS: dict[Callable[[Log], None], dict[Policy, str | None]] = {
    tasks_of_a_pool: {
        "first": "0 1 2 3 4 5 =0 =1 =2 =3 =4 =5",
        "last": "3 4 5 2 1 0 =3 =4 =5 =2 =1 =0",
        "turns": None,
    },
    producers_on_a_queue: {
        "first": "a0 a1 a2 b0 b1 b2",
        "last": "b0 b1 b2 a0 a1 a2",
        "turns": "a0 b0 a1 b1 a2 b2",
    },
    a_bounded_queue: {
        "first": "f0 f1 f2 m0 m1 f3 f4 m2 m3 f5 m4 m5",
        "last": "f0 f1 f2 f3 m0 f4 m1 f5 m2 m3 m4 m5",
        "turns": None,
    },
    sleepers: dict.fromkeys(POLICIES, "0.01 0.02 0.03"),
    a_timer: dict.fromkeys(POLICIES, "main timer"),
    locks_and_a_barrier: {
        "first": "a b c C A B",
        "last": "c b a A C B",
        "turns": None,
    },
    a_pool_of_multiprocessing: {
        "first": "0 1 2 3 4 5 0 1 2",
        "last": None,
        "turns": None,
    },
    coroutines: {
        "first": "t0 t1 t2 m0 m1 m2",
        "last": "t2 m2 t1 m1 t0 m0",
        "turns": None,
    },
    a_thread_that_looks_now_and_then: dict.fromkeys(POLICIES, "over"),
    pools_within_a_pool: dict.fromkeys(POLICIES, "0 0 1 3 6"),
    endless_daemons: dict.fromkeys(POLICIES, "50"),
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_policy_gives_one_order(program: Callable[[Log], None], policy: Policy) -> None:
    logs: list[Log] = []
    for _ in range(3):
        logs.append([])
        with in_order(policy) as schedule:
            program(logs[-1])
        assert schedule.baton is not None
        assert schedule.baton.let_go == []
    assert logs[0] == logs[1] == logs[2]
    expected = PROGRAMS[program][policy]
    assert expected is None or " ".join(logs[0]) == expected


@pytest.mark.parametrize("program", [producers_on_a_queue, a_bounded_queue, tasks_of_a_pool])
def test_policies_differ_where_threads_race(program: Callable[[Log], None]) -> None:
    logs = []
    for policy in ("first", "last"):
        log: Log = []
        with in_order(policy):
            program(log)
        logs.append(log)
    assert logs[0] != logs[1]


def test_a_thread_that_ignores_all_others_has_them_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_baton, "_COMPUTING", 0.2)
    monkeypatch.setattr(_baton, "_LOOK", 0.05)
    flag: list[int] = []

    def spin() -> None:
        while not flag:
            pass

    with in_order("first") as schedule:
        thread = threading.Thread(target=spin)
        thread.start()
        _threads.sleep(0.001)
        flag.append(1)
        thread.join()
    assert schedule.baton is not None
    (where,) = schedule.baton.let_go
    assert "test_source_thread_timing.py" in where


def test_threads_that_wait_in_c_for_each_other_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_baton, "_ASLEEP", 4)
    monkeypatch.setattr(_baton, "_LOOK", 0.05)
    rows: Any = _threads._SimpleQueue()
    with in_order("first") as schedule:
        thread = threading.Thread(target=lambda: rows.put(1))
        thread.start()
        assert rows.get() == 1
        thread.join()
    assert schedule.baton is not None
    assert len(schedule.baton.let_go) == 1


def test_time_that_a_thread_computes_is_no_reason_to_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_baton, "_ASLEEP", 2)
    monkeypatch.setattr(_baton, "_LOOK", 0.02)
    with in_order("first") as schedule:
        thread = threading.Thread(target=lambda: None)
        thread.start()
        until = time.process_time() + 0.5
        while time.process_time() < until:
            pass
        thread.join()
    assert schedule.baton is not None
    assert schedule.baton.let_go == []


def test_a_forked_process_goes_its_own_way() -> None:
    rows: queue.Queue[int] = queue.Queue()
    with in_order("first"):
        threading.Thread(target=rows.get, daemon=True).start()
        pid = os.fork()
        if pid == 0:
            lock = threading.Lock()
            with lock:
                os._exit(0 if not lock.acquire(timeout=0.01) else 1)
        assert os.waitpid(pid, 0)[1] == 0
        rows.put(1)


def test_errors_and_timeouts_are_the_programs() -> None:
    with in_order("first"), ThreadPoolExecutor(1) as pool:
        failed = pool.submit(int, "x")
        with pytest.raises(ValueError, match="invalid literal"):
            failed.result()
        never: concurrent.futures.Future[None] = concurrent.futures.Future()
        with pytest.raises(concurrent.futures.TimeoutError):
            list(concurrent.futures.as_completed([never], timeout=0))
        late = pool.submit(_threads.sleep, 0.2)
        with pytest.raises(concurrent.futures.TimeoutError):
            late.result(timeout=0.05)
        lock, rows = threading.Lock(), queue.SimpleQueue[int]()
        with pytest.raises(queue.Empty):
            rows.get(timeout=0.01)
        with pytest.raises(queue.Empty):
            rows.get_nowait()
        with lock:
            assert not lock.acquire(timeout=0.01)
            assert not lock.acquire(blocking=False)
        with pytest.raises(ValueError, match="non-blocking"):
            lock.acquire(blocking=False, timeout=1)
        with pytest.raises(RuntimeError, match="release unlocked lock"):
            lock.release()


def test_everything_is_put_back() -> None:
    def patched() -> tuple[object, ...]:
        futures = concurrent.futures
        return (
            *(threading.Thread.start, threading.Thread.join, threading.Lock, queue.SimpleQueue),
            *(ThreadPoolExecutor.submit, futures.as_completed),
        )

    before = patched()
    with in_order("first"):
        assert set(patched()).isdisjoint(before)
    assert patched() == before


def test_a_program_without_threads_is_not_exercised() -> None:
    assert thread_timing.levels(Facts()) == "no thread was seen to start"
    started = {"thread-timing": {"started": ["x:1"], "taken": []}}
    assert not isinstance(thread_timing.levels(Facts(survey=started)), str)
    stuck = Facts(survey=started, unpinned={"thread-timing": ["x:2"]})
    verdict = thread_timing.judge(Judgement(id="thread-timing", status="held"), stuck)
    assert (verdict.status, "x:2" in verdict.reason) == ("not-exercised", True)


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
