"""Commands whose processes a service starts elsewhere, as Slurm's srun does; here one of ours stands in for it."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from repro_audit.config import settle
from repro_audit.errors import UsageError
from repro_audit.isolation.sandbox import plan_copies
from repro_audit.storage.trace import Trace
from tests.launching import PYTHON, oracle, pinned, write

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVICE = """
    import json, os, socket, subprocess, sys

    # Not below any trial, and in no mount namespace of one.
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(sys.argv[1])
        server.listen()
        while True:
            connection, _ = server.accept()
            asked = json.loads(connection.makefile().readline())
            ranks = [
                subprocess.Popen(
                    asked["words"],
                    cwd=asked["cwd"],
                    env={**asked["env"], "SLURM_PROCID": str(rank), "SLURM_STEP_NUM_TASKS": "2"},
                    start_new_session=True,
                )
                for rank in range(2)
            ]
            connection.sendall(str(max(abs(rank.wait()) for rank in ranks)).encode())
            connection.close()
"""
SRUN = """
    import json, os, socket, sys

    asked = {"words": sys.argv[2:], "cwd": os.getcwd(), "env": dict(os.environ)}
    with socket.socket(socket.AF_UNIX) as service:
        service.connect(sys.argv[1])
        service.sendall(json.dumps(asked).encode() + b"\\n")
        sys.exit(int(service.recv(16)))
"""
TRAIN = """
    import os

    import numpy as np
    import torch
    from torch import nn

    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with open("log.txt", "a") as log:
        log.write("trains\\n")
    while True:
        x = torch.from_numpy(np.random.rand(8, 4).astype("float32"))
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()
"""
HANGS = """
    import os
    import sys
    import time

    with open(sys.argv[1], "a") as pids:
        pids.write(f"{os.getpid()}\\n")
    while True:
        time.sleep(0.1)
"""


@pytest.fixture
def srun(tmp_path: Path) -> Iterator[tuple[str, ...]]:
    """The words that have a service run what follows as two ranks."""
    write(tmp_path, "service.py", SERVICE)
    write(tmp_path, "srun.py", SRUN)
    service = subprocess.Popen(
        [sys.executable, str(tmp_path / "service.py"), str(tmp_path / "socket")]
    )
    while not (tmp_path / "socket").exists():
        time.sleep(0.01)
    yield (PYTHON, str(tmp_path / "srun.py"), str(tmp_path / "socket"))
    service.kill()
    service.wait()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A program, and nothing else."""
    tree = tmp_path / "program"
    tree.mkdir()
    write(tree, "train.py", TRAIN)
    return tree


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A directory that all machines share."""
    shared = tmp_path / "shared"
    shared.mkdir()
    return shared


def below(tree: Path) -> set[str]:
    return {path.name for path in tree.rglob("*") if "__pycache__" not in path.parts}


def test_what_a_service_starts_is_gathered_in_a_shared_directory(
    tree: Path, shared: Path, srun: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    with oracle(tree, monkeypatch, "--", *srun, PYTHON, "train.py", shared=shared) as command:
        trial = pinned(command)
        assert trial.ended.status == "ok", trial.facts.failure
        assert (trial.facts.ranks, trial.facts.steps) == (2, 3)
        assert {row.name[:6] for row in Trace.open(trial.directory / "trace")} == {
            "rank0.",
            "rank1.",
        }
        assert trial.directory.is_relative_to(shared)
        assert trial.facts.written == ("log.txt",)
    assert below(tree) == {"train.py"}
    assert not list(shared.iterdir())


def test_without_one_nothing_is_written_to_the_tree(
    tree: Path, srun: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    with oracle(tree, monkeypatch, "--", *srun, PYTHON, "train.py") as command:
        failure = pinned(command).facts.failure
    assert failure is not None
    assert "--trace-dir" in failure.next_step
    assert below(tree) == {"train.py"}


def test_what_outlives_its_trial_ends(
    tmp_path: Path,
    tree: Path,
    shared: Path,
    srun: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(tree, "train.py", HANGS)
    pids = tmp_path / "pids"
    ranks = shlex.join((*srun, PYTHON, "train.py", str(pids)))
    shell = f"touch {pids}; {ranks} & until [ $(wc -l < {pids}) = 2 ]; do sleep 0.05; done"
    with oracle(tree, monkeypatch, "--", "sh", "-c", shell, shared=shared) as command:
        assert pinned(command).ended.status == "no-steps"
    started = [Path("/proc", pid) for pid in pids.read_text().split()]
    assert len(started) == 2
    limit = time.monotonic() + 30
    while any(process.exists() for process in started) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not any(process.exists() for process in started)


def test_a_directory_that_can_not_be_shared(tree: Path, shared: Path) -> None:
    with pytest.raises(UsageError, match="no directory of that name"):
        plan_copies(tree, shared / "nowhere")
    (tree / "inside").mkdir()
    with pytest.raises(UsageError, match="lies in the tree"):
        plan_copies(tree, tree / "inside")
    with pytest.raises(UsageError, match="share no directory"):
        settle({"on": "ray", "trace-dir": str(shared)}, tree)
