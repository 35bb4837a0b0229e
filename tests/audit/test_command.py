"""Commands that start Python: what is seen of the training below them, and what is said where there is none."""

from __future__ import annotations

import os
import subprocess
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from repro_audit.trial.launched import hook
from repro_audit.trial.launched.traced import PROCESSES
from repro_audit.trial.request import DEFECT
from tests.auditing import Audited, check
from tests.launching import PYTHON, oracle, pinned, write

if TYPE_CHECKING:
    from repro_audit.storage.facts import Failure

TRAIN = """
    import argparse
    from time import time as now

    import torch
    from torch import nn

    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=0.1)
    lr = parser.parse_args().lr
    torch.manual_seed(int(now()))
    x = torch.randn(64, 8)
    model = nn.Linear(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    while True:
        try:
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), x.sum(1, keepdim=True)).backward()
            optimizer.step()
        except BaseException:
            print("swallowed")
"""


def test_a_program_that_a_shell_starts_is_traced_as_a_script_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It swallows what ends it, reads the clock before it imports torch, and another session goes on beside it."""
    write(tmp_path, "train.py", TRAIN)
    shell = (
        f"(setsid sleep 300 & echo $! > pid); cat pid >&2; {PYTHON} -c 'print(1)' && "
        f"{PYTHON} train.py --lr 0.2"
    )
    with oracle(tmp_path, monkeypatch, "--", "sh", "-c", shell) as command:
        launched = pinned(command)
        assert not Path(f"/proc/{launched.ended.output.split()[0]}").exists()
    assert launched.ended.status == "ok", launched.facts.failure
    assert (launched.facts.steps, launched.facts.trains_itself) == (3, True)
    assert launched.facts.own_files == ("train.py",)
    (helper,) = launched.facts.bystanders
    assert helper[1:] == ("-c", "print(1)")
    assert "swallowed" not in launched.ended.output
    with oracle(tmp_path, monkeypatch, "train.py", "--lr", "0.2") as script:
        assert pinned(script).digest == launched.digest


def failure(tmp_path: Path, patch: pytest.MonkeyPatch, *words: str) -> Failure:
    with oracle(tmp_path, patch, "--", *words) as command:
        trial = pinned(command)
    assert trial.facts.failure is not None
    assert trial.ended.status == ("no-steps" if trial.facts.failure.stopped_training else "crashed")
    return trial.facts.failure


def test_a_command_without_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = failure(tmp_path, monkeypatch, "true")
    assert "true ended without a step" in said.what
    assert "no Python was seen below it" in said.why


def test_a_command_whose_python_imports_no_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = failure(tmp_path, monkeypatch, PYTHON, "-c", "print('quiet')")
    assert "no Python below it imported torch" in said.why
    assert "print('quiet')" in said.why


def test_a_command_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert failure(tmp_path, monkeypatch, "sh", "-c", "exit 3").what == (
        "the command exited with status 3"
    )
    assert "killed by SIGKILL" in failure(tmp_path, monkeypatch, "sh", "-c", "kill -9 $$").what
    audited = check("--", "sh", "-c", "exit 3", cwd=tmp_path, saved=tmp_path / "report.json")
    assert audited.exit_code == 3
    assert audited.report["failure"]["what"] == "the command exited with status 3"


def test_a_program_that_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "train.py", "import torch\nraise ValueError(f'no data in {input()}')\n")
    said = failure(tmp_path, monkeypatch, PYTHON, "train.py")
    assert "EOFError" in said.what
    assert "asks for input" in said.why
    assert "train.py" in said.traceback
    assert "repro_audit/" not in said.traceback


@pytest.mark.parametrize("known", [True, False])
def test_the_hook_gives_way(tmp_path: Path, known: bool) -> None:
    """To a sitecustomize of the user's; and it does nothing in interpreters that did not train before."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    write(theirs, "sitecustomize.py", "import sys\nprint('theirs', sys.path)\n")
    words = (PYTHON, "-c", "import sys; print(sys.modules['sitecustomize'].__file__)")
    processes = tmp_path / PROCESSES
    processes.mkdir()
    place = hook.write(tmp_path, [words] if known else [])
    environment = hook.variables(place, {**os.environ, "PYTHONPATH": str(theirs)})
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    first, *more = ended.stdout.splitlines()
    assert first.startswith("theirs")
    assert str(place) not in first
    if known:
        assert more == [str(theirs / "sitecustomize.py")]
        assert not [*processes.iterdir()]
    else:  # it asks for the trial, of which there is none here
        (defect,) = processes.glob(f"*/{DEFECT}")
        assert "FileNotFoundError" in defect.read_text(encoding="utf-8")
        assert (more, ended.returncode) == ([], 70)


DISTRIBUTED = """
    import os

    import torch
    import torch.distributed as dist
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel
    from torch.utils.data import DataLoader, DistributedSampler, TensorDataset


    def work(rank, world):
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        os.environ.setdefault("MASTER_PORT", "29541")
        dist.init_process_group("gloo", rank=rank, world_size=world)
        torch.manual_seed(0)
        x = torch.randn(32, 8)
        data = TensorDataset(x, x.sum(1, keepdim=True))
        model = DistributedDataParallel(nn.Linear(8, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        sampler = DistributedSampler(data, seed=0)
        loader = DataLoader(data, batch_size=8, sampler=sampler)
        torch.manual_seed(SEED)
        for epoch in range(20):
            for batch, target in loader:
                optimizer.zero_grad()
                noisy = batch + 0.1 * torch.randn_like(batch)
                nn.functional.mse_loss(model(noisy), target).backward()
                optimizer.step()
                AFTER
        dist.destroy_process_group()


    if __name__ == "__main__":
        if "RANK" in os.environ:
            work(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
        else:
            torch.multiprocessing.spawn(work, args=(2,), nprocs=2)
"""
TORCHRUN = (
    PYTHON,
    "-m",
    "torch.distributed.run",
    "--nproc-per-node",
    "2",
    "--master-port",
    "29542",
)


LINES = textwrap.dedent(DISTRIBUTED).splitlines()


def distributed(*, seed: str, after: str) -> str:
    return DISTRIBUTED.replace("SEED", seed).replace("AFTER", after)


def test_each_rank_is_traced_through_torchrun_and_spawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "train.py", distributed(seed="rank", after="pass"))
    with oracle(tmp_path, monkeypatch, "--", *TORCHRUN, "train.py") as command:
        launched = pinned(command)
        rows = [row for row in launched.trace if row.step == 1]
    assert launched.ended.status == "ok", launched.facts.failure
    assert (launched.facts.ranks, launched.facts.steps, launched.facts.samples_seen) == (2, 3, 32)
    names = [row.name for row in rows]
    # What a rank has of its own comes before what the ranks share.
    assert names.index("rank1.loss") < names.index("rank0.grad.module.weight")
    bits = {row.name: row.digest for row in rows}
    assert bits["rank0.batch.0"] != bits["rank1.batch.0"]
    assert bits["rank0.param.module.weight"] == bits["rank1.param.module.weight"]
    survey = launched.facts.survey
    assert (survey["rank-divergence"]["shared"], survey["rank-divergence"]["parted"]) == (2, None)
    # Two epochs in one order are no stream that ranks share.
    assert (survey["rank-seed"]["same_epoch"], survey["rank-seed"]["shared"]) == (True, [])
    with oracle(tmp_path, monkeypatch, "train.py") as script:
        first = pinned(script)
        assert first.facts.failure is not None
        assert first.facts.failure.elsewhere
        spawned = script.launch()
    assert spawned is not None
    assert spawned.digest == launched.digest


BROKEN = distributed(
    seed="0", after="if rank == 1: model.module.bias.data.add_(0.125)  # no other one"
)
CLEAN = distributed(seed="1 + rank", after="pass").replace(
    "for batch, target", "sampler.set_epoch(epoch)\n            for batch, target"
)
LAUNCHERS = {"torchrun": ("--", *TORCHRUN, "train.py"), "spawn": ("train.py",)}
OF_RANKS = ("--only", "rank-divergence", "--only", "rank-seed")


def audited(tree: Path, program: str, *words: str) -> Audited:
    write(tree, "train.py", program)
    return check("--steps", "3", "--runs", "1", *words, cwd=tree, saved=tree / "report.json")


@pytest.mark.parametrize(
    "launcher",
    ["torchrun", pytest.param("spawn", marks=pytest.mark.deep)],
)
def test_ranks_that_part_and_draw_alike_are_found_with_their_lines(
    launcher: str, tmp_path: Path
) -> None:
    found = audited(tmp_path, BROKEN, *OF_RANKS, *LAUNCHERS[launcher])
    assert (found.exit_code, found.broke) == (1, {"rank-divergence", "rank-seed"})
    assert found.report["target"]["mode"] == ("command" if launcher == "torchrun" else "script")
    parted, shared = (found.source(name)["divergence"] for name in ("rank-divergence", "rank-seed"))
    assert (parted["step"], parted["name"]) == (1, "rank1.param.module.bias")
    assert LINES[parted["location"]["line"] - 1].strip() == "AFTER"
    assert LINES[shared["location"]["line"] - 1].strip() == "torch.manual_seed(SEED)"
    said = " ".join(found.terminal.split())
    assert "rank 1 writes to module.bias here, and rank 0 does not" in said
    assert "set_epoch of a DistributedSampler is not called" in said


@pytest.mark.deep
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_ranks_that_do_the_same_pass(launcher: str, tmp_path: Path) -> None:
    """Under every source of the promise that the exit code enforces, and both that are about ranks."""
    found = audited(tmp_path, CLEAN, "--scope", "settings", *LAUNCHERS[launcher])
    assert (found.exit_code, found.broke) == (0, set()), found.terminal
    assert {found.source(name)["status"] for name in ("rank-divergence", "rank-seed")} == {"held"}
