"""Parts of the product on a CUDA device, each by itself: forks, digests, generators, graphs, costs, memory."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from repro_audit import rng
from repro_audit.probe.digest import tensors
from repro_audit.probe.digest.generators import ambient
from tests.auditing import environment
from tests.benchmarks import ops
from tests.benchmarks.plain import train as train_step
from tests.benchmarks.probe import small_transformer
from tests.gpu import programs
from tests.gpu.rows import Row, WrongError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from tests.gpu.rows import Place

LIBRARIES = ("transformers", "lightning", "timm")
_FORKS = """
import os, sys
from repro_audit.trial.interpreter import PRELOADED, preload

preload([*PRELOADED, *sys.argv[1:]])
import torch

assert not torch.cuda.is_initialized(), "a preloaded module started CUDA"
for number in range(2):
    child = os.fork()
    if not child:
        code = 1
        try:
            assert not torch.cuda._is_in_bad_fork(), "a preloaded module asked CUDA"
            assert torch.cuda.is_available()
            code = 0 if float(torch.ones(8, device="cuda").sum()) == 8 else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0, f"child {number} could not use the device"
"""


def forks(place: Place) -> str:
    """Children of an interpreter that has imported everything can use the device, one after the other."""
    found = [name for name in LIBRARIES if _exists(name)]
    _python(_FORKS, *found, cwd=place)
    return f"with torch, numpy, {', '.join(found)} imported"


def _exists(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None


def _python(code: str, *arguments: str, cwd: Place) -> float:
    """Run in an interpreter of its own; seconds."""
    started = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd.new(),
        env=environment(baseline=False),
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise WrongError(ended.stderr.strip()[-250:])
    return time.perf_counter() - started


def digests(_place: Place) -> str:
    """A tensor has the same digest on the device as on the CPU, whatever its form."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(70, 50, generator=generator)
    forms: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "float32": lambda t: t,
        "bfloat16": lambda t: t.bfloat16(),
        "bool": lambda t: t > 0,
        "complex, conjugated": lambda t: torch.complex(t, t).conj(),
        "transposed": lambda t: t.T,
        "strided": lambda t: t[::3, 1::2],
        "empty": lambda t: t[:0],
        "sparse": lambda t: t.relu().to_sparse(),
        "expanded": lambda t: t[:1].expand(9, 50),
        "parameter": nn.Parameter,
    }
    for name, form in forms.items():
        if tensors.digest(form(x)) != tensors.digest(form(x.cuda())):
            raise WrongError(f"{name}: another digest on the device")
    large = torch.arange(30_000_000, dtype=torch.int32)
    if tensors.digest(large) != tensors.digest(large.cuda()):
        raise WrongError("120 MB: another digest on the device")
    return f"{len(forms) + 1} forms"


def streams(_place: Place) -> str:
    """What another stream has yet to compute is waited for by who reads it there."""
    x = torch.randn(2048, 2048, device="cuda")
    found = set()
    for _ in range(5):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            y = x
            for _ in range(20):
                y = (y @ x).tanh()
            found.add(tensors.digest(y))
        torch.cuda.synchronize()
        found.add(tensors.digest(y))
    if len(found) > 1:
        raise WrongError(f"{len(found)} digests of one result")
    return "5 times, read on the stream and after it"


def generators(_place: Place) -> str:
    """The device's generator is seen to move, by its offset too, and can be put back."""
    torch.cuda.manual_seed_all(3)
    states, seen = rng.snapshot(), []
    for _ in range(2):
        seen.append(dict(ambient()))
        torch.rand(5, device="cuda")
    first = torch.rand(5, device="cuda")
    rng.restore(states)
    again = dict(ambient())
    torch.rand(10, device="cuda")
    if seen[0]["rng.cuda:0"] == seen[1]["rng.cuda:0"]:
        raise WrongError("a draw does not show")
    if again != seen[0]:
        raise WrongError("the state does not come back")
    rng.restore(states)
    torch.rand(5, device="cuda")
    torch.rand(5, device="cuda")
    if not torch.equal(first, torch.rand(5, device="cuda")):
        raise WrongError("a restored generator draws other numbers")
    return ", ".join(name for name in seen[0] if "cuda" in name)


_LAZY = """
import torch
from repro_audit import rng
torch.manual_seed(5)
torch.cuda.manual_seed_all(7)
states = rng.snapshot()
assert not torch.cuda.is_initialized(), "the snapshot started CUDA"
first = torch.rand(4, device="cuda")
torch.manual_seed(9)
rng.restore(states)
assert torch.equal(first, torch.rand(4, device="cuda")), "restored before CUDA started: other numbers"
"""


def lazy_generators(place: Place) -> str:
    """States from before CUDA's start are restored after it."""
    return f"{_python(_LAZY, cwd=place):.1f} s"


def graphs(_place: Place) -> str:
    """Nothing that is looked at while a graph is captured breaks the capture."""
    model = nn.Linear(16, 16).cuda()
    x = torch.randn(8, 16, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        model(x)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = model(x)
        tensors.digest(y)
        list(ambient())
    x.fill_(1.0)
    graph.replay()
    if not torch.equal(y, model(x)):
        raise WrongError("the graph computes something else")
    return "digests and generators during capture"


# Costs


def _on_device(parts: tuple[Any, Any, Any, Any]) -> tuple[Any, Any, Any, Any]:
    model, loader, loss, optimizer = parts
    batches = [tuple(each.cuda() for each in batch) for batch in loader]
    return model.cuda(), batches, loss, optimizer


def _seconds(
    parts: Callable[[], Any], steps: int, watched: Callable[[], AbstractContextManager[None]]
) -> float:
    model, batches, loss, optimizer = _on_device(parts())

    def train(count: int) -> None:
        for number in range(count):
            train_step(model, loss, optimizer, batches[number % len(batches)])
        torch.cuda.synchronize()

    with watched():
        train(1)
        started = time.perf_counter()
        train(steps)
        return time.perf_counter() - started


def slowdowns(_place: Place) -> str:
    """What it costs to watch each op, beside PyTorch's own debugging mode."""

    def measured() -> Iterator[str]:
        for name, parts in (("small CNN", ops.small_cnn), ("small transformer", small_transformer)):
            _seconds(parts, 3, ops._plain)
            plain, ours, theirs = (
                statistics.median(_seconds(parts, 3, watched) for _ in range(3))
                for watched in (ops._plain, ops._probed, ops._debugged)
            )
            yield f"{name}: {ours / plain:.1f} times a plain step, DebugMode {theirs / plain:.1f}"

    return "; ".join(measured())


def audit_cost(place: Place) -> str:
    """An audit, beside one plain run of the same program in a process of its own."""
    program = programs.CLEAN["float32"]
    run = f"{program}\n\nmodel, loader, loss, optimizer = build()\nfor x, y in loader:\n    \
loss(model(x.to(DEVICE)), y.to(DEVICE)).backward()\n    optimizer.step()\n"
    plain = statistics.median(_python(run, cwd=place) for _ in range(2))
    place.close()
    audited = place.audit(program, "--steps", "4")
    seconds, trials = audited.report["seconds"], len(audited.report["trials"])
    return f"{trials} trials in {seconds:.1f} s, {seconds / plain:.1f} plain runs of {plain:.1f} s"


def memory(place: Place) -> str:
    """An audit leaves nothing on the device."""
    place.close()
    torch.cuda.empty_cache()
    before = torch.cuda.mem_get_info()[0]
    audited = place.audit(programs.CLEAN["float32"], "--only", "cuda-rng", "--steps", "3")
    place.close()
    left = (before - torch.cuda.mem_get_info()[0]) / 2**20
    if left > 256:  # MiB: more than a context that is about to go
        raise WrongError(f"{left:.0f} MiB of the device are still held")
    return f"{len(audited.report['trials'])} trials, {left:.0f} MiB left behind"


ROWS = (
    Row(name="forks", run=forks),
    Row(name="digests", run=digests),
    Row(name="streams", run=streams),
    Row(name="generators", run=generators),
    Row(name="generators before CUDA starts", run=lazy_generators),
    Row(name="CUDA graphs", run=graphs),
    Row(name="op-level probe", run=slowdowns),
    Row(name="cost of an audit", run=audit_cost),
    Row(name="memory", run=memory),
)
