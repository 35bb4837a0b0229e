"""Audits whose trials run on a Ray cluster, of which all nodes are on this machine; skipped where Ray is missing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.auditing import SAMPLES, Audited, command, environment, read, write_target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Cluster = pytest.importorskip("ray.cluster_utils").Cluster

pytestmark = pytest.mark.filterwarnings("default")

TRAIN = """
    import os
    import time

    import torch
    from torch import nn

    with open(os.environ["SSH_RUNS"], "a") as log:
        log.write(os.environ["SSH_NODE"] + "\\n")
    torch.manual_seed(int(time.time()))
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(16, 4)
    for step in range(4):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
"""
"""It notes which node it runs on, by variables that are a node's own."""
FEW = ("--only", "os-entropy,clock,num-workers,machine", "--no-pinpoint")
WRONG, FAILED, INTERRUPTED = 2, 3, 130
CPUS = 2
CLIENT_PORT = 21001


@dataclass(frozen=True, slots=True, kw_only=True)
class Ray:
    """A cluster, all on this machine."""

    cluster: Any
    runs: Path
    """Where programs note the nodes that they run on; audits have their own files beside it."""

    def lanes(self) -> dict[str, int]:
        """The processes that audits have on nodes, by the names of those."""
        return {
            of_node["SSH_NODE"]: pid
            for pid, words, of_node in self._processes()
            if words.startswith("ray::Lane")
        }

    def leftovers(self) -> list[str]:
        """Directories of audits, and processes that run trials."""
        found = [str(path) for path in self.runs.parent.glob("repro?audit*")]
        return found + [words for _, words, _ in self._processes()]

    def _processes(self) -> Iterator[tuple[int, str, dict[str, str]]]:
        """Of audits on this cluster: number, command line, and the environment of its node."""
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                place, words = process, (process / "cmdline").read_text("utf-8").replace("\0", " ")
                if words.startswith("ray::Lane"):  # it has written its name over its environment
                    parent = re.findall(r"PPid:\s*(\d+)", (process / "status").read_text("utf-8"))
                    place = process.parent / parent[0]
                elif "repro_audit.trial.interpreter" not in words:
                    continue
                pairs = (
                    pair.partition("=") for pair in (place / "environ").read_text().split("\0")
                )
                environ = {name: value for name, _, value in pairs}
                if environ.get("SSH_RUNS") == str(self.runs):
                    yield int(process.name), words, environ


def wait_until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for what other processes do."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)


def node(runs: Path, number: int, variables: dict[str, str]) -> dict[str, Any]:
    """What a node is made of."""
    named = {"SSH_NODE": str(number), "SSH_RUNS": str(runs), "TMPDIR": str(runs.parent)}
    return {
        "num_cpus": CPUS,
        "object_store_memory": 100 << 20,
        "env_vars": {**named, **variables},
    }


@contextmanager
def started(runs: Path, *variables: dict[str, str], **head: Any) -> Iterator[Ray]:
    """A node for each set of variables, which name it too, and the file that programs note themselves in."""
    nodes = [node(runs, number, each) for number, each in enumerate(variables)]
    made = Cluster(initialize_head=True, head_node_args={**nodes[0], **head})
    try:
        for each in nodes[1:]:
            made.add_node(**each)
        made.wait_for_nodes()
        yield Ray(cluster=made, runs=runs)
    finally:
        made.shutdown()


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ray]:
    """Two of one kind."""
    runs = tmp_path_factory.mktemp("nodes") / "runs.log"
    with started(runs, {}, {}, ray_client_server_port=CLIENT_PORT) as ray:
        yield ray


def audit(
    tree: Path, ray: Ray, target: str, *flags: str, on: str = "ray", **variables: str
) -> Audited:
    """An audit on a cluster; nothing is left of it."""
    with auditing(tree, ray, target, *flags, on=on, **variables) as running:
        output, _ = running.communicate(timeout=400)
    saved = tree.parent / "cluster.json"
    return read(saved, exit_code=running.returncode, terminal=output)


@contextmanager
def auditing(
    tree: Path, ray: Ray, target: str, *flags: str, on: str = "ray", **variables: str
) -> Iterator[subprocess.Popen[str]]:
    """While an audit runs on a cluster; nothing is left of it in the end."""
    saved = tree.parent / "cluster.json"
    saved.unlink(missing_ok=True)
    with subprocess.Popen(
        command("--verbose", "--json", str(saved), "--on", on, *flags, target),
        cwd=tree,
        env={
            **environment(baseline=False),
            "RAY_ADDRESS": ray.cluster.address,
            "TMPDIR": str(ray.runs.parent),
            **variables,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        yield running
    wait_until(lambda: not ray.leftovers())


def lines(file: Path) -> list[str]:
    return file.read_text("utf-8").split() if file.exists() else []


def findings(audited: Audited) -> dict[str, Any]:
    """What an audit found, wherever its trials ran."""
    report = audited.report
    return {
        "verdict": (report["verdict"], report["exit_code"], report["scopes"]),
        "sources": [
            {
                key: source[key]
                for key in ("id", "status", "confidence", "reason", "divergence", "levels")
            }
            for source in report["sources"]
            if source["id"] != "machine"
        ],
    }


def told(audited: Audited, part: str) -> str:
    """The note of a report that begins so."""
    (note,) = (each for each in audited.report["notes"] if each.startswith(part))
    return str(note)


@pytest.mark.deep
def test_findings_on_two_nodes_are_those_of_one_machine(two_nodes: Ray, tmp_path: Path) -> None:
    tree = write_target(tmp_path, (SAMPLES / "three_causes.py").read_text("utf-8")).parent
    saved = tmp_path / "local.json"
    ended = subprocess.run(
        command("train.py:build", "--json", str(saved)),
        cwd=tree,
        env=environment(baseline=False),
        capture_output=True,
        text=True,
        check=False,
    )
    local = read(saved, exit_code=ended.returncode, terminal=ended.stderr)
    found = audit(tree, two_nodes, "train.py:build")
    assert {"artifact-cache", "num-workers", "process-reuse"} <= found.broke
    assert findings(found) == findings(local)
    assert told(found, "trials ran on a Ray cluster: ").count(": 2 nodes (")
    assert found.source("machine")["status"] == "not-exercised"


def test_trials_run_on_both_nodes(two_nodes: Ray, tmp_path: Path) -> None:
    two_nodes.runs.unlink(missing_ok=True)
    tree = write_target(tmp_path, TRAIN).parent
    found = audit(tree, two_nodes, "train.py", *FEW)
    assert found.broke == {"clock"}
    assert set(lines(two_nodes.runs)) == {"0", "1"}
    assert "all nodes of the cluster are of one kind" in found.source("machine")["reason"]


def test_a_node_that_is_killed_costs_no_verdict(two_nodes: Ray, tmp_path: Path) -> None:
    two_nodes.runs.unlink(missing_ok=True)
    doomed = two_nodes.cluster.add_node(**node(two_nodes.runs, 2, {}))
    two_nodes.cluster.wait_for_nodes()
    tree = write_target(tmp_path, TRAIN).parent
    with auditing(tree, two_nodes, "train.py", *FEW) as running:
        wait_until(lambda: "2" in lines(two_nodes.runs) or running.poll() is not None, 120)
        two_nodes.cluster.remove_node(doomed, allow_graceful=False)
        output, _ = running.communicate(timeout=240)
    found = read(tmp_path / "cluster.json", exit_code=running.returncode, terminal=output)
    assert found.broke == {"clock"}
    assert told(found, "lost, and its trials made again elsewhere: ")


@pytest.mark.deep
def test_that_the_process_of_the_first_trial_is_killed_costs_no_verdict(
    two_nodes: Ray, tmp_path: Path
) -> None:
    two_nodes.runs.unlink(missing_ok=True)
    tree = write_target(tmp_path, TRAIN).parent
    with auditing(tree, two_nodes, "train.py", *FEW) as running:
        wait_until(lambda: len(set(lines(two_nodes.runs))) > 1 or running.poll() is not None, 120)
        os.kill(two_nodes.lanes()[lines(two_nodes.runs)[0]], signal.SIGKILL)
        output, _ = running.communicate(timeout=240)
    found = read(tmp_path / "cluster.json", exit_code=running.returncode, terminal=output)
    assert found.broke == {"clock"}
    assert told(found, "lost, and its trials made again elsewhere: ")


def test_an_audit_that_is_interrupted_leaves_nothing(two_nodes: Ray, tmp_path: Path) -> None:
    two_nodes.runs.unlink(missing_ok=True)
    tree = write_target(tmp_path, TRAIN).parent
    with auditing(tree, two_nodes, "train.py", *FEW) as running:
        wait_until(lambda: len(lines(two_nodes.runs)) > 2 or running.poll() is not None, 120)
        running.send_signal(signal.SIGINT)
        output, _ = running.communicate(timeout=60)
    assert running.returncode == INTERRUPTED, output
    assert "Traceback" not in output


def test_through_the_client_it_is_the_same(two_nodes: Ray, tmp_path: Path) -> None:
    two_nodes.runs.unlink(missing_ok=True)
    tree = write_target(tmp_path, TRAIN).parent
    found = audit(tree, two_nodes, "train.py", *FEW, on=f"ray://127.0.0.1:{CLIENT_PORT}")
    assert found.broke == {"clock"}, found.terminal
    assert set(lines(two_nodes.runs)) == {"0", "1"}


def test_a_file_that_git_ignores_is_named(two_nodes: Ray, tmp_path: Path) -> None:
    reads = """
        import torch
        weights = torch.load("data/weights.pt")
    """
    tree = write_target(tmp_path, reads).parent
    (tree / ".gitignore").write_text("data\n", "utf-8")
    (tree / "data").mkdir()
    (tree / "data" / "weights.pt").write_bytes(b"")
    found = audit(tree, two_nodes, "train.py", *FEW)
    assert found.exit_code == FAILED
    assert "Ray sends nothing that .gitignore or .rayignore names" in " ".join(
        found.terminal.split()
    )


def test_a_tree_that_is_too_large_is_not_sent(two_nodes: Ray, tmp_path: Path) -> None:
    tree = write_target(tmp_path, TRAIN).parent
    (tree / "large.bin").write_bytes(os.urandom(4 << 20))
    found = audit(tree, two_nodes, "train.py", *FEW, RAY_max_grpc_message_size=str(3 << 20))
    assert found.exit_code == WRONG
    assert "too large to be sent to the nodes" in found.terminal
    assert ".rayignore" in found.terminal
    assert "Traceback" not in found.terminal


def test_a_cluster_that_is_not_there_is_an_error(two_nodes: Ray, tmp_path: Path) -> None:
    tree = write_target(tmp_path, TRAIN).parent
    found = audit(tree, two_nodes, "train.py", *FEW, on="ray://127.0.0.1:1")
    assert found.exit_code == WRONG
    assert "There is no Ray cluster that takes this audit" in found.terminal
    assert "Traceback" not in found.terminal


@pytest.mark.deep
def test_kinds_of_machine_that_compute_otherwise_are_found(tmp_path: Path) -> None:
    tree = write_target(tmp_path, (SAMPLES / "three_causes.py").read_text("utf-8")).parent
    capped = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}
    with started(tmp_path / "runs.log", {}, capped) as ray:
        found = audit(tree, ray, "train.py:build", "--only", "machine")
    machine = found.source("machine")
    assert (machine["status"], machine["confidence"]) == ("broke", "proven"), found.terminal
    assert "ATEN_CPU_CAPABILITY=default" in machine["reason"]
    location = machine["divergence"]["cause"]["location"]
    assert (location["file"], location["function"]) == ("train.py", "build")
    assert str(machine["divergence"]["cause"]["op"]).startswith("aten::")
    assert told(found, "trials ran on a Ray cluster: ").count("1 node (") == 2
