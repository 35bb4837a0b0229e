"""What of `tests.gpu`, and of the sources for CUDA devices, can be tested without one."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
import types
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from repro_audit.experiment import Judgement, LevelOutcome
from repro_audit.probe.digest import tensors
from repro_audit.sources import cudnn_benchmark, matmul_precision, uninitialized_memory
from repro_audit.storage.facts import Facts
from repro_audit.trial.interpreter import NVML_CHECK, preload
from tests.auditing import REPOSITORY
from tests.gpu import programs
from tests.gpu.rows import Place, Row, WrongError, line, render, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from repro_audit.source import Source

NO_DEVICE = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")


@NO_DEVICE
def test_without_a_device_it_says_so() -> None:
    command = [sys.executable, "-m", "tests.gpu"]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout.count("\n")) == (0, 1), ended.stderr
    assert "no CUDA device" in ended.stdout


TEXTS = {
    **{race.name: programs.text(race) for race in programs.RACES},
    **programs.CLEAN,
    "as PyTorch has it": programs.convolution(""),
}


@NO_DEVICE
@pytest.mark.parametrize("name", TEXTS)
def test_each_program_trains_on_a_cpu_too(name: str) -> None:
    threads, module = torch.get_num_threads(), types.ModuleType("train")
    precision = torch.backends.cudnn.allow_tf32
    try:
        if name in {race.name for race in programs.RACES}:
            assert programs.step(TEXTS[name])
            return
        exec(compile(TEXTS[name], "train.py", "exec"), module.__dict__)  # noqa: S102 - a test's own
        built = module.build()
        if callable(built):
            built()
            return
        model, loader, loss_function, _ = built
        x, y = next(iter(loader))
        assert torch.isfinite(loss_function(model(x).float(), y))
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.allow_tf32 = precision


def _raises(error: BaseException) -> Callable[[Place], str]:
    def row(_place: Place) -> str:
        raise error

    return row


def _slow(_place: Place) -> str:
    time.sleep(30)
    return "late"


def test_each_row_is_caught_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        Row(name="right", run=lambda _: "found | it"),
        Row(name="wrong", run=_raises(WrongError("no\nway"))),
        Row(name="error", run=_raises(ZeroDivisionError("by 0"))),
        Row(name="exit", run=_raises(SystemExit(3))),
        Row(name="slow", run=_slow),
    ]
    ended = run(rows, seconds_of_row=0.2)
    results = [each.result for each in ended]
    assert results == ["ok", "wrong", "error", "error", "error"]
    assert "ZeroDivisionError: by 0 (test_gpu.py:" in ended[2].said
    assert "did not end within" in ended[4].said
    assert capsys.readouterr().out.count("\n") == len(rows)
    assert line(ended[1]).startswith("| wrong | wrong | no way |")
    assert "1 ok, 1 wrong, 3 error" in render(ended)


def test_what_no_time_is_left_for_is_said() -> None:
    ended = run([Row(name="late", run=lambda _: "never")], seconds=0)
    assert [each.result for each in ended] == ["left out"]


def test_what_a_graph_captures_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    ones, twos = torch.ones(3).to_sparse(), torch.full((3,), 2.0).to_sparse()
    assert tensors.digest(ones) != tensors.digest(twos)
    monkeypatch.setattr(tensors, "_opaque_forms", set())
    monkeypatch.setattr(tensors, "is_being_captured", lambda _: True)
    assert tensors.digest(ones) == tensors.digest(twos)
    assert tensors.BEING_CAPTURED in tensors.opaque_forms()[0]
    assert tensors.dense(ones) is None


# The sources for CUDA devices

BROKE = Judgement(id="", status="broke")
DEVICE = Facts(cuda="a device")


def _judged(source: Source, facts: Facts, *diverged: str) -> str:
    levels = tuple(
        LevelOutcome(level=level, diverged=level in diverged, trial="t01", status="ok")
        for level in ("as written", "high", "medium", "True")
    )
    return source.judge(replace(BROKE, levels=levels), facts).status


def test_who_sets_a_flag_around_a_program_answers_for_what_the_device_makes_of_it() -> None:
    precision, benchmark = matmul_precision.SOURCE, cudnn_benchmark.SOURCE
    assert _judged(precision, DEVICE, "high", "medium") == "delegated"
    assert _judged(precision, DEVICE, "as written", "high", "medium") == "broke"
    assert _judged(precision, Facts(), "high", "medium") == "broke"  # the program looks at it
    assert _judged(benchmark, DEVICE, "True") == "delegated"
    assert _judged(benchmark, DEVICE, "as written", "True") == "broke"
    assert _judged(benchmark, Facts(), "True") == "broke"


def test_a_device_that_the_program_does_not_use_exercises_nothing() -> None:
    held = Judgement(id="", status="held")
    for facts, reason in (
        (Facts(), "no CUDA device"),
        (Facts(cuda_idle=True), "the program uses no CUDA device"),
    ):
        verdict = cudnn_benchmark.SOURCE.judge(held, facts)
        assert verdict.status == "not-exercised"
        assert verdict.reason.startswith(reason)
    assert "CUDA" in uninitialized_memory.SOURCE.judge(held, DEVICE).reason
    assert "CUDA" not in uninitialized_memory.SOURCE.judge(held, Facts()).reason


@pytest.mark.parametrize("before", [None, "0"])
def test_a_library_that_asks_for_devices_as_it_is_imported_leaves_no_mark(
    before: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if before is None:
        monkeypatch.delenv(NVML_CHECK, raising=False)
    else:
        monkeypatch.setenv(NVML_CHECK, before)
    body = f"import os\n\nSEEN = os.environ.get({NVML_CHECK!r})\n"
    (tmp_path / "a_library_that_asks.py").write_text(body, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(gc, "freeze", lambda: None)
    preload(["a_library_that_asks"])
    assert sys.modules.pop("a_library_that_asks").SEEN == "1"
    assert os.environ.get(NVML_CHECK) == before


def test_what_runs_in_interpreters_of_its_own_parses() -> None:
    checks = pytest.importorskip(
        "tests.gpu.checks"
    )  # PyTorch's debugging mode is younger than the oldest PyTorch
    for code in (checks._FORKS, checks._LAZY):
        compile(code, "check.py", "exec")
