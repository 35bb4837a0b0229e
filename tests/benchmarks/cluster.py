"""What an audit takes on a Ray cluster, of which all nodes are on this machine: against one here, and by nodes.

`python -m tests.benchmarks.cluster` prints seconds, and what each audit found, which must be alike. Each node counts as
half of this machine's cores, so that two nodes have what the audit here has, and one has half of it.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.auditing import SAMPLES, command, environment

if TYPE_CHECKING:
    from collections.abc import Iterator

READS = """
        noise ="""
WAITS = """
        __import__("time").sleep(0.01)
        noise ="""
"""Each trial waits for its data, as from slow storage, and leaves the cores to others meanwhile."""
NODES = (0, 1, 2)
"""With none the audit runs here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One audit."""

    program: str
    nodes: int
    seconds: float
    trials: int
    found: str
    """Its verdict, and the sources that broke."""


def measured(program: str, tree: Path, target: str, *flags: str) -> Iterator[Row]:
    """The audits of a program, here first."""
    for nodes in NODES:
        with cluster(nodes) as address:
            saved = tree.parent / "report.json"
            on = ("--on", "ray") if nodes else ()
            jobs = ("--jobs", str(cores() if nodes == 0 else share()))
            started = time.perf_counter()
            subprocess.run(
                command("--quiet", "--json", str(saved), *on, *jobs, *flags, target),
                cwd=tree,
                env={**environment(), "RAY_ADDRESS": address},
                check=False,
                capture_output=True,
            )
            seconds = time.perf_counter() - started
        report = json.loads(saved.read_text(encoding="utf-8"))
        saved.unlink()
        broke = [source["id"] for source in report["sources"] if source["status"] == "broke"]
        yield Row(
            program=program,
            nodes=nodes,
            seconds=seconds,
            trials=len(report["trials"]),
            found=f"{report['verdict']}: {', '.join(broke)}",
        )


def cores() -> int:
    """Of this machine."""
    return os.cpu_count() or 1


def share() -> int:
    """The cores of a node."""
    return max(1, cores() // 2)


@contextmanager
def cluster(nodes: int) -> Iterator[str]:
    """The address of a cluster with so many nodes."""
    if not nodes:
        yield ""
        return
    node = {
        "num_cpus": share(),
        "object_store_memory": 100 << 20,
        "env_vars": {"RAY_worker_niceness": "0"},  # else what is beside them here comes first
    }
    made = importlib.import_module("ray.cluster_utils").Cluster(
        initialize_head=True, head_node_args=node
    )
    try:
        for _ in range(nodes - 1):
            made.add_node(**node)
        made.wait_for_nodes()
        yield made.address
    finally:
        made.shutdown()


def main() -> int:
    """Measure, and print each audit as it ends; 1 where two of a program differ in what they found."""
    differ = False
    print("| program | trials run | trials | seconds | found |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as scratch:
        text = (SAMPLES / "three_causes.py").read_text(encoding="utf-8")
        for number, (program, written) in enumerate(
            (
                ("three_causes.py", text),
                ("the same, its data from slow storage", text.replace(READS, WAITS)),
            )
        ):
            tree = Path(scratch, str(number), "tree")
            tree.mkdir(parents=True)
            (tree / "three_causes.py").write_text(written, encoding="utf-8")
            rows = []
            for row in measured(program, tree, "three_causes.py:build"):
                rows.append(row)
                where = f"on {row.nodes} node{'s' * (row.nodes > 1)}" if row.nodes else "here"
                print(f"| {program} | {where} | {row.trials} | {row.seconds:.0f} | {row.found} |")
                sys.stdout.flush()
            differ |= len({row.found for row in rows}) > 1
    return int(differ)


if __name__ == "__main__":
    raise SystemExit(main())
