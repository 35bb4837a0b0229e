"""What crosses between the machine where an audit was started and the nodes that run its trials."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from repro_audit.errors import UsageError
from repro_audit.isolation.scratch import PREFIX, make_scratch, share_scratch, sweep
from repro_audit.trial.cluster import crossing, lane
from repro_audit.trial.cluster.connection import Cluster
from repro_audit.trial.cluster.nodes import in_words, kind
from repro_audit.trial.driver.checkpoint import STATE

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "there"),
    [
        ('"/home/u/tree"', '"/ray/pkg"'),
        ('"/home/u/tree/a.py:3"', '"/ray/pkg/a.py:3"'),
        ('"/home/u/tree-2/a.py"', '"/home/u/tree-2/a.py"'),
        ('"/home/u/tree.old"', '"/home/u/tree.old"'),
    ],
)
def test_paths_below_the_tree_are_renamed_and_no_others(text: str, there: str) -> None:
    files = {"a.jsonl": text.encode(), "a.bin": text.encode()}
    found = crossing.renamed(files, "/home/u/tree", "/ray/pkg")
    assert found == {"a.jsonl": there.encode(), "a.bin": text.encode()}


def test_a_path_is_renamed_in_json_within_json_too() -> None:
    key = json.dumps(["/home/ü/a.py", 3])
    text = json.dumps({"file": "/home/ü/a.py", "key": key})
    found = json.loads(crossing.renamed_text(text, "/home/ü", '/ray/"pkg'))
    assert found["file"] == '/ray/"pkg/a.py'
    assert json.loads(found["key"]) == ['/ray/"pkg/a.py', 3]


def test_files_come_back_as_they_were_but_for_checkpoints(tmp_path: Path) -> None:
    files = {"facts.json": b"{}", "trace/rows": bytes(range(256)), f"first/{STATE}": b"large"}
    crossing.write(files, tmp_path / "sent")
    (tmp_path / "sent" / "link").symlink_to(tmp_path)
    found = crossing.read(tmp_path / "sent")
    assert found == {name: files[name] for name in ("facts.json", "trace/rows")}


def test_a_lane_has_the_environment_of_the_audit_on_the_machine_of_the_node(tmp_path: Path) -> None:
    node = {"PATH": "/node/bin", "HOME": "/node", "ATEN_CPU_CAPABILITY": "default", "RAY_X": "1"}
    audit = {"PATH": "/audit/bin", "HOME": "/audit", "LEVEL": "3", "PYTHONHASHSEED": "5"}
    with subprocess.Popen(["/bin/cat"], env=node, stdin=subprocess.PIPE) as raylet:
        worker = {"OMP_NUM_THREADS": "1", "RAY_RAYLET_PID": str(raylet.pid)}
        with patch.dict(os.environ, {**worker, "CUDA_VISIBLE_DEVICES": "1"}, clear=True):
            lane.adopt(audit)
            adopted = dict(os.environ)
        raylet.communicate()
    assert adopted == {
        "PATH": "/node/bin",
        "HOME": "/node",
        "ATEN_CPU_CAPABILITY": "default",
        "CUDA_VISIBLE_DEVICES": "1",
        "LEVEL": "3",
        "PYTHONHASHSEED": "5",
    }


def test_a_kind_is_called_by_its_cpu_and_what_it_alone_has() -> None:
    one, two = ("AMD", "AVX2", "8 cores", "torch 2.9"), ("AMD", "AVX512", "8 cores", "torch 2.9")
    assert in_words({"a": one, "b": two, "c": one}) == {
        "a": "AMD, AVX2",
        "b": "AMD, AVX512",
        "c": "AMD, AVX2",
    }
    assert in_words({"a": one}) == {"a": "AMD"}
    assert in_words({}) == {}


def test_a_kind_knows_what_kernels_read_from_the_environment() -> None:
    capped = "ATEN_CPU_CAPABILITY=default"
    with patch.dict(os.environ, {"ATEN_CPU_CAPABILITY": "default"}):
        assert capped in kind()
    with patch.dict(os.environ):
        os.environ.pop("ATEN_CPU_CAPABILITY", None)
        assert capped not in kind()


def test_there_is_an_error_where_ray_is_missing(tmp_path: Path) -> None:
    with (
        patch.dict(sys.modules, {"ray": None}),
        pytest.raises(UsageError, match="Ray can not be imported") as raised,
    ):
        Cluster("ray", tmp_path)
    assert "pip install 'repro-audit[ray]'" in raised.value.next_step


def test_what_lanes_share_lasts_as_long_as_one_of_them(tmp_path: Path) -> None:
    shared = tmp_path / f"{PREFIX}audit"
    locks = [share_scratch(shared) for _ in range(2)]
    (shared / "tmp").mkdir()
    for lock in locks:
        sweep(tmp_path)
        assert (shared / "tmp").is_dir()
        os.close(lock)
    sweep(tmp_path)
    assert not shared.exists()


def test_what_killed_lanes_left_is_deleted_once_they_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    scratch, lock = make_scratch(tmp_path)
    shared = share_scratch(tmp_path / f"{PREFIX}audit")
    lane.clear("audit", seconds=0.2)
    assert scratch.exists()
    assert (tmp_path / f"{PREFIX}audit").exists()
    os.close(lock)
    os.close(shared)
    lane.clear("audit", seconds=10.0)
    assert not list(tmp_path.iterdir())
