"""Audits whose trials run in lanes, as on a cluster; here each lane is a process beside the audit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from repro_audit.trial.cluster import connection
from tests.auditing import Audited, write_target
from tests.clustering import Process, ProcessCluster

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path

    from tests.sharing import Interpreters

TRAIN = """
    from pathlib import Path

    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    CACHE = Path("cache.pt")

    def build(seed):
        torch.manual_seed(seed)
        x = torch.randn(64, 32)
        if CACHE.exists():
            x = torch.load(CACHE).float()
        torch.save(x.half(), CACHE)
        model = nn.Sequential(nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
        return model, DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=4)
"""
"""It finds what its first run left; and other kernels compute otherwise, whose values one trial hands to another."""
FLAGS = ("--only", "cpu-isa,artifact-cache,machine", "--steps", "2")


class Losing(ProcessCluster):
    """The first lane is killed with its second batch of trials."""

    def call(self, lane: Process, method: str, *arguments: Any, **named: Any) -> Future[Any]:
        call = super().call(lane, method, *arguments, **named)
        if method == "run" and lane is self.processes[0] and lane.ran > 1:
            self.end(lane)
        return call


def findings(audited: Audited) -> list[dict[str, Any]]:
    """What an audit found, wherever its trials ran."""
    words = ("id", "status", "confidence", "reason", "divergence", "levels")
    return [
        {word: source[word] for word in words}
        for source in audited.report["sources"]
        if source["id"] != "machine"
    ]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_target(tmp_path_factory.mktemp("lanes"), TRAIN).parent


@pytest.fixture(scope="module")
def local(interpreters: Interpreters, tree: Path) -> Audited:
    return audited(interpreters, tree, "local")


def audited(interpreters: Interpreters, tree: Path, name: str, *flags: str) -> Audited:
    """An audit for which this CPU counts as it is."""
    saved = tree.parent / f"{name}.json"
    words = (*flags, *FLAGS, "train.py:build")
    return interpreters.check(*words, cwd=tree, saved=saved, baseline=False)


def test_findings_are_those_of_one_machine_though_a_lane_is_lost(
    local: Audited,
    tree: Path,
    tmp_path: Path,
    interpreters: Interpreters,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Losing] = []

    def connect(address: str, root: Path) -> Losing:
        made.append(Losing(address, root))
        return made[0]

    monkeypatch.setattr(connection, "Cluster", connect)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    found = audited(interpreters, tree, "found", "--on", "ray")
    (cluster,) = made
    assert "artifact-cache" in found.broke
    assert findings(found) == findings(local)
    assert found.exit_code == local.exit_code
    assert "lost, and its trials made again elsewhere: one" in found.report["notes"]
    assert all(process.ran for process in cluster.processes)
    assert {process.node for process in cluster.processes} == {"one", "two"}
    assert cluster.closed
    assert not list(tmp_path.glob("repro-audit-*"))
    assert not list(tree.glob("cache.pt"))
