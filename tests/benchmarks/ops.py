"""What the op-level probe costs, beside PyTorch's own `DebugMode` with hashes and stacks, in one process."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils._debug_mode import DebugMode
from torch.utils.data import DataLoader, TensorDataset

from repro_audit.probe.detail.ops import Ops
from repro_audit.probe.detail.session import Detailed
from tests.benchmarks.plain import train
from tests.benchmarks.probe import Program, small_transformer, tiny_mlp
from tests.benchmarks.table import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

ALLOWED = 1 / 3
"""Of the slowdown that `DebugMode` makes."""


def small_cnn() -> tuple[Any, Iterable[Any], Any, Any]:
    """Three convolutions with batch normalisation, on 32 by 32 images; SGD with momentum."""
    model = nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(64, 10),
    )
    data = TensorDataset(torch.randn(256, 3, 32, 32), torch.randint(10, (256,)))
    loader = DataLoader(data, batch_size=32, shuffle=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    return model, loader, nn.CrossEntropyLoss(), optimizer


PROGRAMS = (
    Program(name="tiny MLP", parts=tiny_mlp, steps=20, allowed=ALLOWED),
    Program(name="small CNN", parts=small_cnn, steps=6, allowed=ALLOWED),
    Program(name="small transformer", parts=small_transformer, steps=3, allowed=ALLOWED),
)


@contextmanager
def _plain() -> Iterator[None]:
    yield


@contextmanager
def _probed() -> Iterator[None]:
    """All that a trial watches: ops with the lines that they are due to, and every line and draw besides."""
    with tempfile.TemporaryDirectory() as directory:
        detailed = Detailed(Path(directory, "detail"), ops=Ops, from_step=0, to_step=sys.maxsize)
        call = nn.Module.__call__
        with detailed:
            assert detailed.ops is not None
            nn.Module.__call__ = detailed.ops.telling(call)  # type: ignore[method-assign]
            try:
                yield
            finally:
                nn.Module.__call__ = call  # type: ignore[method-assign]


@contextmanager
def _debugged() -> Iterator[None]:
    with (
        DebugMode(record_stack_trace=True),
        DebugMode.log_tensor_hashes(hash_fn="norm", hash_inputs=True),
    ):
        yield


def measure(repeats: int) -> list[Row]:
    """One row a program: the median over `repeats` of our slowdown against that of `DebugMode`, side by side."""
    return [_row(program, repeats) for program in PROGRAMS]


def _row(program: Program, repeats: int) -> Row:
    _seconds(program, _plain)
    triples = [
        (_seconds(program, _plain), _seconds(program, _probed), _seconds(program, _debugged))
        for _ in range(repeats)
    ]
    ours = statistics.median(probed / plain for plain, probed, _ in triples)
    theirs = statistics.median(debugged / plain for plain, _, debugged in triples)
    return Row(
        what=f"op-level probe, {program.name} ({ours:.2g} times the plain loop)",
        against=f"DebugMode with hashes and stacks ({theirs:.2g} times)",
        ratio=statistics.median(probed / debugged for _, probed, debugged in triples),
        allowed=program.allowed,
    )


def _seconds(program: Program, watched: Callable[[], AbstractContextManager[None]]) -> float:
    """Train under something, after one step that warms it up."""
    model, loader, loss_function, optimizer = program.parts()
    batches = _endless(loader)
    with watched():
        train(model, loss_function, optimizer, next(batches))
        started = time.perf_counter()
        for _ in range(program.steps):
            train(model, loss_function, optimizer, next(batches))
        return time.perf_counter() - started


def _endless(loader: Iterable[Any]) -> Any:
    while True:
        yield from loader
