"""`clock`: which readings it answers, to whom, how it ticks, and what an audit says of programs that read it."""

# ruff: noqa: PLW0108 - functions are looked up when they are called, for it is names that are replaced

from __future__ import annotations

import datetime as dt
import os
import pickle
import queue
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from repro_audit.sources.clock import PACES, PINNED, SOURCE
from tests.auditing import check, write_target
from tests.sourcing import NOON, context, in_force

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("shared_interpreters")

READINGS: dict[str, Callable[[], Any]] = {
    "time": lambda: time.time(),
    "time_ns": lambda: time.time_ns(),
    "monotonic": lambda: time.monotonic(),
    "monotonic_ns": lambda: time.monotonic_ns(),
    "perf_counter": lambda: time.perf_counter(),
    "perf_counter_ns": lambda: time.perf_counter_ns(),
    "process_time": lambda: time.process_time(),
    "thread_time_ns": lambda: time.thread_time_ns(),
    "clock_gettime": lambda: time.clock_gettime(time.CLOCK_REALTIME),
    "clock_gettime_ns": lambda: time.clock_gettime_ns(time.CLOCK_MONOTONIC),
    "localtime": lambda: time.localtime(),
    "localtime(None)": lambda: time.localtime(None),
    "gmtime": lambda: time.gmtime(),
    "ctime": lambda: time.ctime(),
    "asctime": lambda: time.asctime(),
    "strftime": lambda: time.strftime("%Y-%m-%d %H:%M:%S"),
    "datetime.now": lambda: dt.datetime.now(),  # noqa: DTZ005 - as programs do
    "datetime.now(utc)": lambda: dt.datetime.now(dt.timezone.utc),
    "datetime.now(tz=utc)": lambda: dt.datetime.now(tz=dt.timezone.utc),
    "datetime.today": lambda: dt.datetime.today(),  # noqa: DTZ002 - as programs do
    "date.today": lambda: dt.date.today(),  # noqa: DTZ011 - as programs do
}


def readings(tmp_path: Path, level: str) -> dict[str, Any]:
    """What each way to read the clock gives under a level."""
    found = {}
    for name, read in READINGS.items():
        with in_force(SOURCE, level, context(tmp_path, SOURCE, level)):
            found[name] = read()
    return found


def test_a_level_decides_what_is_read(tmp_path: Path) -> None:
    by_level = {level: readings(tmp_path, level) for level in PACES}
    for level, found in by_level.items():
        assert readings(tmp_path, level) == found
    for name in READINGS:
        distinct = {str(found[name]) for found in by_level.values()}
        # Seconds are too little for a date.
        assert len(distinct) == len(PACES) - (name == "date.today")


def test_the_pinned_level_is_noon_of_the_audits_day(tmp_path: Path) -> None:
    with in_force(SOURCE, PINNED, context(tmp_path, SOURCE, PINNED)):
        assert 0 < time.time() - NOON < 1
        assert dt.datetime.now(dt.timezone.utc).isoformat().startswith("2026-01-01T12:00:00")
        assert time.gmtime()[:4] == (2026, 1, 1, 12)


@pytest.mark.parametrize("level", PACES)
def test_time_ticks(level: str, tmp_path: Path) -> None:
    with in_force(SOURCE, level, context(tmp_path, SOURCE, level)) as trial:
        at_import = time.time()
        for callback in trial.on_run:
            callback()
        before = time.monotonic(), time.time()
        deadline, reads = time.time() + 1.0, 0
        while time.time() < deadline:
            reads += 1
        assert reads <= 64
        time.sleep(0.001)
        assert (time.monotonic(), time.time()) > before > (0, at_import)


def test_durations_that_are_compared_come_out_one_way_or_the_other(tmp_path: Path) -> None:
    def took() -> int:
        started = time.perf_counter_ns()
        return time.perf_counter_ns() - started

    outcomes = set()
    for level in PACES:
        with in_force(SOURCE, level, context(tmp_path, SOURCE, level)):
            first, second = took(), took()
        outcomes.add((first > second) - (first < second))
    assert outcomes == {-1, 0, 1}


def collected(limit: float) -> int:
    """How much a program collects until its time is up."""
    deadline, count = time.monotonic() + limit, 0
    while time.monotonic() < deadline:
        count += 1
    return count


@pytest.mark.parametrize("level", PACES)
def test_whoever_has_a_time_limit_gets_something_and_ends(level: str, tmp_path: Path) -> None:
    limits = (0.001, 0.01, 1, 60, 3600)
    with in_force(SOURCE, level, context(tmp_path, SOURCE, level)):
        again = [[collected(limit) for limit in limits] for _ in range(100)]
    assert all(0 < count < 1000 for counts in again for count in counts)
    assert all(counts == sorted(counts) for counts in again)


def test_a_time_limit_ends_where_several_lines_read(tmp_path: Path) -> None:
    with in_force(SOURCE, PINNED, context(tmp_path, SOURCE, PINNED)):
        deadline, count = time.monotonic() + 10, 0
        while time.monotonic() < deadline:
            started = time.time()
            count += time.time() > started
    assert 100 < count < 1000


def test_a_helper_that_reads_is_told_apart_by_its_callers(tmp_path: Path) -> None:
    def now() -> float:
        return time.time()

    with in_force(SOURCE, PINNED, context(tmp_path, SOURCE, PINNED)):
        for _ in range(20):
            deadline, count = now() + 0.001, 0
            while now() < deadline:
                count += 1
            assert count > 0


def test_a_sleep_passes_on_the_clock(tmp_path: Path) -> None:
    with in_force(SOURCE, PINNED, context(tmp_path, SOURCE, PINNED)):
        before = time.monotonic_ns()
        time.sleep(0.002)
        assert time.monotonic_ns() - before == 2_000_000 + PACES[PINNED].tick


def test_a_further_run_in_the_process_reads_the_same(tmp_path: Path) -> None:
    found = []
    with in_force(SOURCE, PINNED, context(tmp_path, SOURCE, PINNED)) as trial:
        at_import = time.time()
        for _ in range(2):
            for callback in trial.on_run:
                callback()
            found.append([time.time(), time.perf_counter()])
    assert found[0] == found[1]
    assert found[0][0] > at_import


def test_other_threads_do_not_move_it(tmp_path: Path) -> None:
    def read_on() -> None:
        for _ in range(10):
            time.time()

    def run(*, beside: bool) -> float:
        with in_force(SOURCE, PINNED, context(tmp_path, SOURCE, PINNED)):
            if beside:
                thread = threading.Thread(target=read_on)
                thread.start()
                thread.join()
            return time.time()

    assert run(beside=True) == run(beside=False)


def test_libraries_see_the_real_time(tmp_path: Path) -> None:
    real = time.time()
    with in_force(SOURCE, "months later", context(tmp_path, SOURCE, "months later")):
        file = tmp_path / "file"
        file.touch()
        with pytest.raises(queue.Empty):
            queue.Queue().get(timeout=0.001)
        library = eval(compile("lambda: __import__('time').time()", os.__file__, "eval"))  # noqa: S307 - a library's line
        assert abs(library() - real) < 3600
        assert time.time() - NOON > 300 * 86_400


@dataclass
class Stamped:
    made: float = field(default_factory=time.time)


def test_a_library_that_the_program_calls_reads_for_it(tmp_path: Path) -> None:
    def library(name: str) -> Callable[[], float]:
        made: dict[str, Any] = {}
        place = str(tmp_path / "site-packages" / name / "timers.py")
        exec(compile("import time\ndef now():\n    return time.time()\n", place, "exec"), made)  # noqa: S102
        now: Callable[[], float] = made["now"]
        return now

    with in_force(SOURCE, PINNED, context(tmp_path, SOURCE, PINNED)) as trial:
        assert abs(library("acme")() - NOON) < 1
        assert abs(library("tqdm")() - NOON) > 3600
        assert SOURCE.survey is not None
        ((file, _),) = SOURCE.survey(trial)
    assert file.endswith("test_source_clock.py")


def test_generated_code_is_its_callers(tmp_path: Path) -> None:
    with in_force(SOURCE, PINNED, context(tmp_path, SOURCE, PINNED)):

        @dataclass
        class Late:
            made: float = field(default_factory=time.time)

        assert abs(Late().made - NOON) < 1
    assert abs(Stamped().made - time.time()) < 3600


def test_what_is_given_is_kept(tmp_path: Path) -> None:
    expected = (
        time.gmtime(0),
        time.strftime("%Y", time.gmtime(0)),
        time.ctime(0),
        time.asctime(time.gmtime(0)),
    )
    with in_force(SOURCE, PINNED, context(tmp_path, SOURCE, PINNED)):
        given = (
            time.gmtime(0),
            time.strftime("%Y", time.gmtime(0)),
            time.ctime(0),
            time.asctime(time.gmtime(0)),
        )
        assert given == expected
        assert pickle.loads(pickle.dumps(time.time)) is time.time  # noqa: S301 - our own
        with pytest.raises(TypeError):
            time.time(1)
        with pytest.raises(TypeError):
            dt.datetime.now("utc")  # type: ignore[arg-type]


def test_the_lines_that_read_are_named(tmp_path: Path) -> None:
    with in_force(SOURCE, PINNED, context(tmp_path, SOURCE, PINNED)) as trial:
        READINGS["time"]()
        READINGS["datetime.now"]()
        assert SOURCE.survey is not None
        found = SOURCE.survey(trial)
    lines = {READINGS[name].__code__.co_firstlineno for name in ("time", "datetime.now")}
    assert {line for _, line in found} == lines


def test_nothing_is_left_replaced(tmp_path: Path) -> None:
    before = (vars(time).copy(), dict(vars(dt.datetime)), dict(vars(dt.date)))
    readings(tmp_path, PINNED)
    assert (vars(time), dict(vars(dt.datetime)), dict(vars(dt.date))) == before


# Audits

HEAD = """
    import random
    import time
    from datetime import date, datetime
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    def parts(shift=0.0):
        x = torch.randn(16, 3) + shift
        return nn.Linear(3, 1), DataLoader(TensorDataset(x, x[:, :1]), batch_size=4)
"""


def audit(tmp_path: Path, body: str, *options: str) -> Any:
    program = write_target(tmp_path, HEAD + body)
    saved = tmp_path / "report.json"
    return check("train.py:build", "--steps", "4", *options, cwd=program.parent, saved=saved)


def test_alone_as_a_seed(tmp_path: Path) -> None:
    body = """
    def build(seed=0):
        torch.manual_seed(datetime.now().microsecond)
        return parts()
    """
    audited = audit(tmp_path, body, "--skip", "seed-effect")
    assert audited.broke == {"clock"}
    assert audited.source("clock")["confidence"] == "proven"
    assert audited.source("clock")["fix"]["verified"]
    assert "train.py:14 reads the clock" in audited.terminal


def test_training_that_stops_when_its_time_is_up(tmp_path: Path) -> None:
    body = """
    def build(seed=0):
        torch.manual_seed(seed)
        model, loader = parts()
        optimizer = torch.optim.SGD(model.parameters())

        def train():
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                for x, y in loader:
                    optimizer.zero_grad()
                    nn.functional.mse_loss(model(x), y).backward()
                    optimizer.step()

        return train
    """
    audited = audit(tmp_path, body, "--steps", "9", "--only", "clock")
    assert audited.broke == {"clock"}
    levels = {level["level"]: level["diverged"] for level in audited.source("clock")["levels"]}
    assert levels == {"seconds later": False, "days later": False, "months later": True}


def test_a_library_that_stops_the_training(tmp_path: Path) -> None:
    """As ignite's `TimeLimit` does: the program's own line is the one that calls it."""
    package = tmp_path / "site-packages" / "acme_timers"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "import time\n\n\nclass Limit:\n    def __init__(self, seconds):\n"
        "        self.end = time.time() + seconds\n\n"
        "    def is_over(self):\n        return time.time() > self.end\n",
        encoding="utf-8",
    )
    body = f"""
    import sys
    sys.path.append({str(package.parent)!r})
    from acme_timers import Limit

    def build(seed=0):
        torch.manual_seed(seed)
        model, loader = parts()
        optimizer = torch.optim.SGD(model.parameters())

        def train():
            limit = Limit(60)
            while not limit.is_over():
                for x, y in loader:
                    optimizer.zero_grad()
                    nn.functional.mse_loss(model(x), y).backward()
                    optimizer.step()

        return train
    """
    audited = audit(tmp_path, body, "--steps", "9", "--only", "clock")
    assert audited.broke == {"clock"}
    assert "train.py:24 reads the clock" in audited.terminal


def test_among_several_causes(tmp_path: Path) -> None:
    body = """
    def build(seed=0):
        torch.manual_seed(seed)
        words = list({"the", "cat", "sat", "on", "mats"})
        return parts(random.random() + date.today().toordinal() % 1000 + words.index("cat"))
    """
    audited = audit(tmp_path, body, "--only", "clock,python-rng,hash-seed,os-entropy")
    assert audited.broke == {"clock", "python-rng", "hash-seed"}
    assert "days later and months later" in audited.source("clock")["reason"]


def test_time_that_is_logged_does_no_harm(tmp_path: Path) -> None:
    body = """
    def build(seed=0):
        started = time.perf_counter()
        torch.manual_seed(seed)
        made = parts()
        print(datetime.now(), "took", time.perf_counter() - started)
        return made
    """
    audited = audit(tmp_path, body, "--only", "clock")
    assert audited.exit_code == 0
    assert audited.source("clock")["status"] == "held"
