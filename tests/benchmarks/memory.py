"""What the step-level probe costs in memory: the peak of a run with it, beside the same run without.

`python -m tests.benchmarks.memory [WIDTH [LAYERS]]` prints both; by default for a model of a billion parameters, whose
gradients are as large again: it takes 9 GB.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

from repro_audit.probe import Probe
from repro_audit.storage.trace import TraceWriter
from tests.benchmarks.plain import train
from tests.benchmarks.table import Row

BILLION = (16_384, 4)
"""The width of a layer, and how many there are."""
SMALL = (4_096, 4)
ALLOWED, ALLOWED_BYTES = 1.1, 200 << 20
STEPS = 2


def measure(width: int, layers: int) -> list[Row]:
    """One row: the peak of the probed run against the plain one's, each in a process of its own."""
    plain, probed = (_peak(kind, width, layers) for kind in ("plain", "probed"))
    parameters, more = width * (width + 1) * layers, (probed - plain) >> 20
    return [
        Row(
            what=f"peak memory, {parameters / 1e6:,.0f} M parameters ({more:+,} MB)",
            against=f"the plain run's {plain >> 20:,} MB",
            ratio=probed / plain,
            allowed=min(ALLOWED, 1 + ALLOWED_BYTES / plain),
        )
    ]


def _peak(kind: str, width: int, layers: int) -> int:
    words = [sys.executable, "-m", "tests.benchmarks.memory", kind, str(width), str(layers)]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def _run(width: int, layers: int, *, probed: bool) -> int:
    """Train; the most memory that this process has held, in bytes."""
    model = nn.Sequential(*(nn.Linear(width, width, device="meta") for _ in range(layers)))
    model.to_empty(device="cpu")
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.fill_(1e-5 * (number + 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    batch = (torch.ones(1, width), torch.zeros(1, width))
    with tempfile.TemporaryDirectory() as directory:
        trace = TraceWriter(Path(directory, "trace"))
        probe = Probe(trace=trace, max_steps=STEPS + 1)
        if probed:
            probe.install()
        try:
            for _ in range(STEPS):
                train(model, nn.MSELoss(), optimizer, batch)
        finally:
            if probed:
                probe.uninstall()
            trace.close()
        if probed and probe.steps != STEPS:
            raise RuntimeError(probe.steps)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


if __name__ == "__main__":
    kind, *sizes = sys.argv[1:] if sys.argv[1:2] in (["plain"], ["probed"]) else ["", *sys.argv[1:]]
    numbers = [*map(int, sizes), *BILLION[len(sizes) :]]
    if kind:
        print(_run(numbers[0], numbers[1], probed=kind == "probed"))
    else:
        from tests.benchmarks.table import render

        print(render(measure(numbers[0], numbers[1])))
