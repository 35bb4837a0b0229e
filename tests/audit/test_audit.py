"""Audits of small programs: several causes at once, who owns the seeding, what is left out, what stays the same."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.auditing import Audited, check, write_target

if TYPE_CHECKING:
    from pathlib import Path

HEAD = """
    import random
    from pathlib import Path
    import numpy as np
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    def parts(shift=0.0):
        x = torch.randn(16, 3) + shift
        return nn.Linear(3, 1), DataLoader(TensorDataset(x, x[:, :1]), batch_size=4)
"""

UNSEEDED = """
    def build(seed):
        torch.manual_seed(seed)
        return parts(np.random.rand() + random.random())
"""

# Of the kernel, but by no function: no source accounts for it.
NOISE = """
    def build():
        return parts(int(Path("/proc/sys/kernel/random/uuid").read_text()[:4], 16))
"""


def audit(tmp_path: Path, body: str, *options: str) -> Audited:
    """Audit a program of three lines or so."""
    program = write_target(tmp_path, HEAD + body)
    saved = tmp_path / "report.json"
    return check("train.py:build", "--steps", "4", *options, cwd=program.parent, saved=saved)


def test_two_generators_left_unseeded_by_a_program_that_takes_a_seed(tmp_path: Path) -> None:
    audited = audit(tmp_path, UNSEEDED)
    assert audited.broke == {"python-rng", "numpy-rng"}
    assert audited.exit_code == 1
    for name in audited.broke:
        source = audited.source(name)
        assert source["confidence"] == "proven"
        assert source["fix"]["verified"]
        assert source["divergence"]["phase"] == "data"
        assert source["divergence"]["max_abs"] > 0
    assert audited.source("seed-effect")["status"] == "held"


def test_a_program_that_leaves_seeding_to_its_caller(tmp_path: Path) -> None:
    audited = audit(tmp_path, "\n    def build():\n        return parts(np.random.rand())\n")
    assert audited.broke == set()
    assert audited.exit_code == 0
    assert audited.source("numpy-rng")["status"] == "delegated"
    assert audited.source("torch-rng")["status"] == "delegated"
    assert audited.source("python-rng")["status"] == "held"


def test_noise_is_nobodys_fault(tmp_path: Path) -> None:
    audited = audit(tmp_path, NOISE, "--only", "hash-seed", "--only", "torch-rng")
    assert audited.broke == set()
    assert audited.exit_code == 1
    assert audited.report["unexplained"]["phase"] == "data"
    assert audited.report["scopes"]["rerun"] == "broke"


def test_pickle_alone_brings_the_run_that_it_is_judged_by(tmp_path: Path) -> None:
    body = """
    import pickle

    def build(seed=0):
        torch.manual_seed(seed)
        path = Path("embedding.pkl")
        if not path.exists():
            path.write_bytes(pickle.dumps(nn.Embedding(8, 3)))
        table = pickle.loads(path.read_bytes())
        x = torch.arange(16) % 8
        model = nn.Sequential(table, nn.Linear(3, 1))
        return model, DataLoader(TensorDataset(x, torch.randn(16, 1)), batch_size=4)
    """
    audited = audit(tmp_path, body, "--only", "pickled-embedding")
    assert audited.broke == {"pickled-embedding"}
    assert audited.source("hash-seed")["status"] == "not-exercised"
    assert "embedding.pkl" in audited.terminal


def test_files_of_the_first_run_explain_the_second_one_in_its_process(tmp_path: Path) -> None:
    body = """
    def build():
        path = Path("cache.pt")
        data = torch.load(path) if path.exists() else torch.randn(16, 3)
        torch.save(data, path)
        return nn.Linear(3, 1), [(x, torch.zeros(4, 1)) for x in data.split(4)]
    """
    audited = audit(tmp_path, body)
    assert audited.broke == {"artifact-cache"}
    assert "cache.pt" in audited.terminal


def test_a_seed_that_is_taken_and_ignored(tmp_path: Path) -> None:
    audited = audit(
        tmp_path, "\n    def build(seed):\n        return parts()\n", "--only", "seed-effect"
    )
    assert audited.broke == {"seed-effect"}


def test_other_workers_that_only_reorder_get_the_mend_for_that(tmp_path: Path) -> None:
    body = """
    def build(seed=0):
        torch.manual_seed(seed)
        x = torch.arange(48.0).view(16, 3)
        own = torch.Generator().manual_seed(seed)
        return nn.Linear(3, 1), DataLoader(
            TensorDataset(x, x[:, :1]), batch_size=4, shuffle=True, generator=own, num_workers=1,
            persistent_workers=True,
        )
    """
    audited = audit(tmp_path, body, "--only", "num-workers")
    assert audited.broke == {"num-workers"}
    assert audited.source("num-workers")["divergence"]["kind"] == "order"
    assert "RandomSampler" in audited.source("num-workers")["fix"]["snippet"]


def test_a_report_that_can_not_be_saved_is_said_before_the_audit(tmp_path: Path) -> None:
    program = write_target(tmp_path, HEAD + UNSEEDED)
    missing = tmp_path / "missing" / "report.json"
    audited = check("train.py:build", cwd=program.parent, saved=missing)
    assert audited.exit_code == 2
    assert "--json" in audited.terminal


def test_unknown_id_is_answered_with_the_nearest(tmp_path: Path) -> None:
    audited = audit(tmp_path, UNSEEDED, "--only", "numpy-rgn")
    assert audited.exit_code == 2
    assert "did you mean numpy-rng?" in audited.terminal


def test_other_promises_are_enforced_on_request(tmp_path: Path) -> None:
    body = """
    count = 0

    def build(seed=0):
        global count
        count += 1
        torch.manual_seed(seed)
        return parts(count)
    """
    audited = audit(tmp_path, body)
    assert (audited.broke, audited.exit_code) == ({"process-reuse"}, 0)
    enforced = audit(tmp_path, body, "--require", "settings", "--only", "process-reuse")
    assert (enforced.broke, enforced.exit_code) == ({"process-reuse"}, 1)


def test_environment_set_before_the_import_of_torch_is_honoured(tmp_path: Path) -> None:
    """Forks can not follow such a program, so it is audited with fresh interpreters throughout."""
    program = write_target(
        tmp_path,
        'import os\nos.environ["OMP_NUM_THREADS"] = "1"\nimport torch\nfrom torch import nn\n'
        "def build():\n    return nn.Linear(2, 1), [(torch.ones(1, 2) * torch.get_num_threads(), torch.ones(1, 1))]\n",
    )
    saved = tmp_path / "report.json"
    audited = check("train.py:build", "--only", "process-reuse", cwd=program.parent, saved=saved)
    assert audited.report["environment"]["threads"] == 1
    assert audited.broke == set()
    assert audited.report["unexplained"] is None


@pytest.mark.deep
def test_the_same_audit_twice_gives_the_same_report_but_for_times(tmp_path: Path) -> None:
    first, second = audit(tmp_path, UNSEEDED), audit(tmp_path, UNSEEDED)
    assert timeless(first.report) == timeless(second.report)
    assert timeless(first.terminal) == timeless(second.terminal)
    narrow = audit(tmp_path, UNSEEDED, "--only", "torch-rng")
    assert timeless(narrow.report) != timeless(first.report)


def timeless(value: Any) -> Any:
    """A report without its times."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key != "seconds"}
    if isinstance(value, list):
        return [timeless(item) for item in value]
    return re.sub(r"in [\d.]+ s", "in s", value) if isinstance(value, str) else value
