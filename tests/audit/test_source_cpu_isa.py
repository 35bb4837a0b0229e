"""cpu-isa: caps act in the trial, the guilty libraries are named, and programs that cap themselves are cleared."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from repro_audit.context import TrialContext
from repro_audit.experiment import Judgement, LevelOutcome
from repro_audit.source import Levels
from repro_audit.sources import cpu_isa
from repro_audit.storage.facts import Facts
from tests.auditing import REPOSITORY, check, write_target

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("shared_interpreters")

HEAD = """
    import numpy as np
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    def parts(shift=0.0):
        x = torch.rand(16, 3) + shift
        return nn.Linear(3, 1), DataLoader(TensorDataset(x, x[:, :1]), batch_size=4)
"""
WEIGHTS = """
    def build(seed):
        torch.set_num_threads(1)
        torch.manual_seed(seed)
        return parts()
"""
x86 = pytest.mark.skipif(platform.machine() not in cpu_isa.X86, reason="caps are known for x86")


@x86
def test_alone(tmp_path: Path) -> None:
    tree = write_target(tmp_path, HEAD + WEIGHTS).parent
    saved = tmp_path / "report.json"
    audited = check("train.py:build", "--steps", "4", cwd=tree, saved=saved, baseline=False)
    assert audited.broke == {"cpu-isa"}
    assert audited.exit_code == 0
    source = audited.source("cpu-isa")
    assert source["scope"] == "portable"
    assert "emulated" in source["reason"]
    assert "ATen" in source["reason"]
    assert source["confidence"] == "proven"
    assert all(variable in source["fix"]["snippet"] for variable, *_ in cpu_isa.LIBRARIES.values())
    guilty = {level["level"]: level["diverged"] for level in source["levels"]}
    assert guilty[cpu_isa.BASELINE]
    assert guilty["ATen alone capped at the baseline"]
    assert not guilty["oneDNN alone capped at the baseline"]


@x86
def test_beside_other_causes(tmp_path: Path) -> None:
    body = """
    def build(seed):
        torch.set_num_threads(1)
        torch.manual_seed(seed)
        return parts(np.random.rand() + (0.5 if "CUBLAS_WORKSPACE_CONFIG" in os.environ else 0))
    """
    tree = write_target(tmp_path, HEAD + "\n    import os\n" + body).parent
    only = ("--only", "cpu-isa", "--only", "numpy-rng", "--only", "cublas-workspace")
    audited = check(
        "train.py:build", "--steps", "4", *only, cwd=tree, saved=tmp_path / "r", baseline=False
    )
    assert audited.broke == {"cpu-isa", "numpy-rng", "cublas-workspace"}


def test_a_program_that_caps_itself_is_cleared(tmp_path: Path) -> None:
    caps = "".join(
        f"\n    os.environ[{name!r}] = {value!r}"
        for name, value in cpu_isa.capped(cpu_isa.BASELINE).items()
    )
    tree = write_target(tmp_path, f"\n    import os{caps}\n{HEAD}{WEIGHTS}").parent
    options = ("--steps", "4", "--only", "cpu-isa", "--require", "portable")
    audited = check("train.py:build", *options, cwd=tree, saved=tmp_path / "r", baseline=False)
    assert audited.broke == set()
    assert audited.exit_code == 0
    # The floor, its repeats, and a round for each level; no part is tried where nothing differs.
    tried = {trial["setting"].get("cpu-isa") for trial in audited.report["trials"]}
    assert tried.isdisjoint(cpu_isa.PARTS)


# The source by itself


def facts(capability: str = "AVX512", **changes: object) -> Facts:
    survey = {
        "machine": "x86_64",
        "capability": capability,
        "libraries": ["ATen", "oneDNN", "MKL"],
        "capped": False,
        "numpy": False,
        "compiled": False,
        **changes,
    }
    return Facts(survey={"cpu-isa": survey})


def test_levels_only_ever_lower_what_the_cpu_has() -> None:
    wide = cpu_isa.levels(facts("AVX512"))
    assert isinstance(wide, Levels)
    assert wide.varied == (cpu_isa.BASELINE, cpu_isa.AVX2)
    assert wide.alone
    narrow = cpu_isa.levels(facts("AVX2"))
    assert isinstance(narrow, Levels)
    assert narrow.varied == (cpu_isa.BASELINE,)


def test_levels_of_other_machines_and_builds() -> None:
    assert isinstance(cpu_isa.levels(facts(machine="aarch64")), str)
    assert isinstance(cpu_isa.levels(Facts()), str)
    without = cpu_isa.levels(facts(libraries=["ATen"], capped=True))
    assert isinstance(without, Levels)
    assert without.parts == {cpu_isa.BASELINE: ("ATen alone capped at the baseline",)}
    assert not without.alone


def test_numpy_is_capped_where_the_program_computes_in_it() -> None:
    uses = cpu_isa.levels(facts("AVX2", numpy=True))
    assert isinstance(uses, Levels)
    assert uses.varied == (cpu_isa.NUMPY, cpu_isa.BASELINE)
    assert uses.parts[cpu_isa.NUMPY] == tuple(cpu_isa.NUMPY_PARTS)
    # Where the program caps the others, one trial does for all.
    caps = cpu_isa.levels(facts("AVX2", numpy=True, capped=True))
    assert isinstance(caps, Levels)
    assert caps.varied == (cpu_isa.ALL,)
    assert {*cpu_isa.NUMPY_PARTS, *cpu_isa.PARTS} == set(caps.parts[cpu_isa.ALL])


def test_compiled_code_is_not_capped() -> None:
    assert cpu_isa.levels(facts(compiled=True)) == cpu_isa.COMPILED
    found = facts(compiled=True, numpy=True)
    levels = cpu_isa.levels(found)
    assert isinstance(levels, Levels)
    assert levels.varied == (cpu_isa.NUMPY,)
    held = cpu_isa.judge(Judgement(id="cpu-isa", status="held"), found)
    assert held.status == "not-exercised"
    assert "NumPy" in held.reason


def test_the_environment_only_ever_lowers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_isa, "_dispatched", lambda: ("X86_V3", "X86_V4"))
    for variable in (cpu_isa.FEATURES, cpu_isa.CORE):
        monkeypatch.delenv(variable, raising=False)
    assert cpu_isa.environment(cpu_isa.PINNED) == cpu_isa.environment(cpu_isa.BASELINE) == {}
    both = {cpu_isa.FEATURES: "X86_V3 X86_V4", cpu_isa.CORE: cpu_isa.LOWEST_CORE}
    assert cpu_isa.environment(cpu_isa.NUMPY) == cpu_isa.environment(cpu_isa.ALL) == both
    numpy, openblas = cpu_isa.NUMPY_PARTS
    assert cpu_isa.environment(numpy) | cpu_isa.environment(openblas) == both
    # What the user has set goes on to hold.
    monkeypatch.setenv(cpu_isa.FEATURES, "AVX512_ICL")
    monkeypatch.setenv(cpu_isa.CORE, "Prescott")
    assert cpu_isa.environment(cpu_isa.NUMPY) == {cpu_isa.FEATURES: "AVX512_ICL X86_V3 X86_V4"}


def test_apply_sets_and_undoes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKL_CBWR", "AVX512")
    for variable in ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA"):
        monkeypatch.delenv(variable, raising=False)
    trial = TrialContext(seed=0, setting={}, directory=tmp_path, root=tmp_path)
    with cpu_isa.apply(cpu_isa.PINNED, trial):
        assert os.environ["MKL_CBWR"] == "AVX512"
    with cpu_isa.apply(cpu_isa.AVX2, trial):
        assert os.environ["MKL_CBWR"] == os.environ["ONEDNN_MAX_CPU_ISA"] == "AVX2"
        assert os.environ["ATEN_CPU_CAPABILITY"] == "avx2"
    with cpu_isa.apply("MKL alone capped at the baseline", trial):
        assert os.environ["MKL_CBWR"] == "COMPATIBLE"
        assert "ATEN_CPU_CAPABILITY" not in os.environ
    assert os.environ["MKL_CBWR"] == "AVX512"


def judged(*diverged: str) -> str:
    levels = [
        LevelOutcome(level=level, diverged=level in diverged, trial="t01", status="ok")
        for level in (cpu_isa.BASELINE, *cpu_isa.PARTS)
    ]
    judgement = Judgement(id="cpu-isa", status="broke", levels=tuple(levels))
    return cpu_isa.judge(judgement, facts()).reason


def test_the_guilty_are_named() -> None:
    aten, onednn, mkl = cpu_isa.PARTS
    assert judged(cpu_isa.BASELINE, aten).endswith("ATen by itself")
    assert judged(cpu_isa.BASELINE, onednn, mkl).endswith("oneDNN and MKL by themselves")
    assert judged(*cpu_isa.PARTS, cpu_isa.BASELINE).endswith("ATen, oneDNN and MKL by themselves")
    assert judged(cpu_isa.BASELINE).endswith("only several together")


RAN_KERNELS = """
import os
import sys

sys.path.append(sys.argv[1])
for name in ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR"):
    os.environ.pop(name, None)
import torch

from repro_audit.trial.interpreter import LEAST_CAPABLE, has_run_kernels

before = has_run_kernels()
torch.ones(3).sum()
own = torch.backends.cpu.get_cpu_capability()
print(before, has_run_kernels(), own not in LEAST_CAPABLE)
"""


def test_an_import_that_runs_a_kernel_is_noticed() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", RAN_KERNELS, str(REPOSITORY)],
        capture_output=True,
        text=True,
        check=True,
    )
    before, after, can_show = ended.stdout.split()
    assert before == "False"
    assert after == can_show
