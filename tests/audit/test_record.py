"""A run that was recorded is verified elsewhere, and what was changed since is found, with the place where it shows."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from repro_audit import recording
from repro_audit.analysis.tolerance import parse as bounds
from repro_audit.config import Options
from repro_audit.replacements import environment as in_environment
from repro_audit.report import as_json, formats
from repro_audit.report.model import Outcome, Report
from repro_audit.report.progress import Progress
from repro_audit.target import parse
from repro_audit.variation import Variation
from tests.auditing import environment

OTHER_PYTHON = os.environ.get("OTHER_PYTHON", "")
"""An interpreter with another version of torch."""

PROGRAM = """
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(8, 64), nn.LayerNorm(64), nn.GELU())
        self.head = nn.Linear(64, 1)

    def forward(self, x):
        hidden = self.inner(x)
        return self.head(hidden)


def build(seed=0):
    torch.manual_seed(seed)
    x = torch.from_numpy(np.load("data.npy"))
    model = Net()
    return model, DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=64)
"""
SCRIPT = """
import argparse
import torch

parser = argparse.ArgumentParser()
parser.add_argument("--scale", type=float, default=1.0)
scale = parser.parse_args().scale
torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for _ in range(3):
    loss = (model(torch.randn(8, 4)) * scale).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""
RANKS = """
import os
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(0)
x = torch.randn(32, 8) + rank
model = DistributedDataParallel(nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(3):
    scaled = x * (float(os.environ.get("SCALE", "1")) if rank else 1.0)
    optimizer.zero_grad()
    model(scaled).square().mean().backward()
    optimizer.step()
"""
TWO_THREADS = {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": None, "ATEN_CPU_CAPABILITY": None}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a program, its data, and a record of its run with two threads."""
    place = tmp_path_factory.mktemp("recorded")
    (place / "train.py").write_text(PROGRAM)
    data = np.random.default_rng(0).standard_normal((512, 8)).astype("f4")
    np.save(place / "data.npy", data)
    before = Path.cwd()
    os.chdir(place)
    try:
        with in_environment(TWO_THREADS):
            report = recording.record(
                parse("train.py:build"), options(), Progress(quiet=True), place / "run.repro"
            )
    finally:
        os.chdir(before)
    assert report.exit_code == 0
    return place


@pytest.fixture
def copy(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same at another path, where the test works."""
    place = shutil.copytree(recorded, tmp_path / "elsewhere")
    monkeypatch.chdir(place)
    for name, value in TWO_THREADS.items():
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    return place


def options(**chosen: Any) -> Options:
    return Options(steps=3, **chosen)


def verified(*tolerance: str) -> Report:
    report = recording.verify(
        Path("run.repro"), None, options(), Progress(quiet=True), tolerance=bounds(tolerance)
    )
    jsonschema.validate(as_json.document(report), as_json.schema())
    return report


def edit(old: str, new: str, name: str = "train.py") -> None:
    text = Path(name).read_text()
    assert old in text
    Path(name).write_text(text.replace(old, new))


def test_an_unchanged_program_is_equal_elsewhere(copy: Path) -> None:
    report = verified()
    assert report.verdict is Outcome.REPRODUCIBLE
    assert len(report.trials) == 1


def test_one_bit_of_one_weight(copy: Path, tmp_path: Path) -> None:
    edit(
        "    return model, DataLoader",
        "    with torch.no_grad():\n"
        "        model.head.weight.view(torch.int32)[0, 3] ^= 1\n"
        "    return model, DataLoader",
    )
    report = verified()
    assert report.verdict is Outcome.NOT_REPRODUCIBLE
    (entry,) = report.sources
    found = entry.divergence
    assert found is not None
    assert found.cause is not None
    assert found.size is not None
    assert (found.step, found.phase, found.name) == (0, "init", "param.head.weight")
    assert (found.size.mismatched, found.size.first_index) == (1, (0, 3))
    assert found.cause.location is not None
    assert found.cause.location.code == "model.head.weight.view(torch.int32)[0, 3] ^= 1"
    assert "code train.py" in entry.reason
    for name in formats.FORMATS:
        formats.save(report, [formats.output(f"{name}:{tmp_path / name}", where="test")])
        assert (tmp_path / name).stat().st_size


def test_another_number_of_threads_is_put_back_and_proven(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (entry,) = verified().sources
    assert entry.reason.startswith("proven: with variable OMP_NUM_THREADS as in the record")
    found = entry.divergence
    assert found is not None
    assert found.cause is not None
    assert found.cause.op == "aten::native_layer_norm_backward"
    assert found.cause.module == "inner.1"


@pytest.mark.deep
def test_within_a_tolerance(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    report = verified("rel=1e-3,abs=1e-5")
    assert report.verdict is Outcome.REPRODUCIBLE
    assert report.comparison is not None
    assert "tensors differ, by at most" in report.comparison.within
    assert verified("rel=1e-3,abs=1e-5", "gradients:ulp=0").verdict is Outcome.NOT_REPRODUCIBLE


@pytest.mark.deep
def test_one_bit_of_a_data_file(copy: Path) -> None:
    data = np.load("data.npy")
    data.view("u4")[7, 2] ^= 1
    np.save("data.npy", data)
    (entry,) = verified().sources
    assert "file data.npy" in entry.reason
    found = entry.divergence
    assert found is not None
    assert found.cause is not None
    assert found.cause.location is not None
    assert "np.load" in (found.cause.location.code or "")
    assert (found.phase, found.name) == ("data", "batch.0")


@pytest.mark.deep
def test_one_bit_of_one_batch(copy: Path) -> None:
    edit("    model = Net()", "    x.view(torch.int32)[70, 1] ^= 1\n    model = Net()")
    (entry,) = verified().sources
    found = entry.divergence
    assert found is not None
    assert found.cause is not None
    assert found.cause.location is not None
    assert (found.step, found.name) == (2, "batch.0")
    assert found.cause.location.code == "x.view(torch.int32)[70, 1] ^= 1"


@pytest.mark.deep
def test_a_variable_varied(copy: Path) -> None:
    report = recording.vary(
        parse("train.py:build"),
        Variation.read("env=OMP_NUM_THREADS=1"),
        options(),
        Progress(quiet=True),
        tolerance=bounds(()),
    )
    (entry,) = report.sources
    assert entry.divergence is not None
    assert entry.divergence.cause is not None
    assert entry.divergence.cause.op == "aten::native_layer_norm_backward"
    assert {trial.id for trial in report.trials} == {"a-t00", "a-t01", "b-t00", "b-t01"}


@pytest.mark.deep
def test_arguments_varied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text(SCRIPT)
    report = recording.vary(
        parse("train.py"),
        Variation.read("args=--scale 1.5"),
        options(),
        Progress(quiet=True),
        tolerance=bounds(()),
    )
    (entry,) = report.sources
    assert entry.divergence is not None
    assert entry.divergence.cause is not None
    cause = entry.divergence.cause
    assert cause.location is not None
    assert "scale" in (cause.location.code or "")


@pytest.mark.deep
def test_a_rank_that_changed_is_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ranks.py").write_text(RANKS, encoding="utf-8")
    words = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29547")
    target = parse("--", (sys.executable, *words, "ranks.py"))
    record = Path("run.repro")
    assert recording.record(target, options(), Progress(quiet=True), record).exit_code == 0
    monkeypatch.setenv("SCALE", "1.5")
    report = recording.verify(record, target, options(), Progress(quiet=True), tolerance=bounds(()))
    assert report.verdict is Outcome.NOT_REPRODUCIBLE
    (entry,) = report.sources
    assert entry.divergence is not None
    assert (entry.divergence.name or "").startswith("rank1.")
    cause = entry.divergence.cause
    assert cause is not None
    assert cause.location is not None
    assert "SCALE" in (cause.location.code or "")


def git(*words: str) -> str:
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_CONFIG_GLOBAL": "/dev/null"}
    who |= {"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    done = subprocess.run(
        ["git", *words],  # noqa: S607
        env={**environment(baseline=False), **who},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def _ten_commits(planted: int) -> list[str]:
    """Commits that each move all lines, of which one changes the numbers, oldest first; data is not in them."""
    git("init", "-q")
    Path(".gitignore").write_text("*.npy\n*.repro\n__pycache__\n")
    for number in range(10):
        if number == planted:
            edit("return self.head(hidden)", "return self.head(hidden) * 1.0000001")
        text = Path("train.py").read_text()
        Path("train.py").write_text(f"# commit {number}\n{text}" if number else text)
        git("add", ".")
        git("commit", "-q", "-m", f"commit {number}")
    return git("rev-list", "--reverse", "HEAD").split()


@pytest.mark.deep
def test_git_bisect_finds_the_commit_that_changed_the_numbers(copy: Path) -> None:
    commits = _ten_commits(planted=6)
    git("bisect", "start", commits[-1], commits[0])
    said = git("bisect", "run", sys.executable, "-m", "repro_audit", "verify", "-q", "run.repro")
    assert f"{commits[6]} is the first bad commit" in said


@pytest.mark.deep
def test_a_commit_varied_names_the_line_that_it_changed(copy: Path) -> None:
    commits = _ten_commits(planted=6)
    report = recording.vary(
        parse("train.py:build"),
        Variation.read(f"commit={commits[2]}"),
        options(),
        Progress(quiet=True),
        tolerance=bounds(()),
    )
    (entry,) = report.sources
    assert entry.divergence is not None
    assert entry.divergence.cause is not None
    cause = entry.divergence.cause
    assert cause.location is not None
    assert "self.head(hidden)" in (cause.location.code or "")
    assert Path.cwd() == copy.resolve()


@pytest.mark.deep
@pytest.mark.skipif(not OTHER_PYTHON, reason="OTHER_PYTHON names no interpreter")
@pytest.mark.parametrize("sample", ["clean_cnn_workers.py", "clean_transformer.py"])
def test_another_torch(sample: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2] / "sample_models")
    report = recording.vary(
        parse(f"{sample}:build"),
        Variation.read(f"python={OTHER_PYTHON}"),
        options(),
        Progress(quiet=True),
        tolerance=bounds(()),
    )
    (entry,) = report.sources
    if report.verdict is Outcome.NOT_REPRODUCIBLE:
        assert entry.divergence is not None
        assert entry.divergence.cause is not None
        assert entry.divergence.cause.op
    else:
        assert report.verdict is Outcome.REPRODUCIBLE
