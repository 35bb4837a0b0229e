"""What the step-level probe costs, beside the same loop without it, in one process."""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from repro_audit.probe import Probe
from repro_audit.storage.trace import TraceWriter
from tests.benchmarks.plain import train
from tests.benchmarks.table import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A small training program."""

    name: str
    parts: Callable[[], tuple[Any, Iterable[Any], Any, Any]]
    steps: int
    """Steps in one measurement."""
    allowed: float


def tiny_mlp() -> tuple[Any, Iterable[Any], Any, Any]:
    """Three Linears, Adam, batches of 32."""
    model = nn.Sequential(
        nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8)
    )
    data = TensorDataset(torch.randn(1024, 32), torch.randint(8, (1024,)))
    loader = DataLoader(data, batch_size=32, shuffle=True)
    return model, loader, nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters())


class Classifier(nn.Module):
    """Four transformer layers over 128 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(1000, 256)
        layer = nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 4)
        self.head = nn.Linear(256, 1000)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits of the next token, flattened over the batch."""
        logits: torch.Tensor = self.head(self.encoder(self.embed(tokens)).mean(1))
        return logits


def small_transformer() -> tuple[Any, Iterable[Any], Any, Any]:
    """Four layers of width 256, AdamW."""
    model = Classifier()
    data = TensorDataset(torch.randint(1000, (64, 128)), torch.randint(1000, (64,)))
    loader = DataLoader(data, batch_size=4, shuffle=True)
    return model, loader, nn.CrossEntropyLoss(), torch.optim.AdamW(model.parameters())


PROGRAMS = (
    Program(name="tiny MLP", parts=tiny_mlp, steps=150, allowed=1.5),
    Program(name="small transformer", parts=small_transformer, steps=6, allowed=1.15),
)


def measure(repeats: int) -> list[Row]:
    """One row a program: the median over `repeats` of a probed run against a plain one right beside it."""
    return [_row(program, repeats) for program in PROGRAMS]


def _row(program: Program, repeats: int) -> Row:
    _seconds(program, probed=False)
    pairs = [
        (_seconds(program, probed=True), _seconds(program, probed=False)) for _ in range(repeats)
    ]
    step = statistics.median(plain for _, plain in pairs) / program.steps
    return Row(
        what=f"step-level probe, {program.name} ({step * 1000:.3g} ms a step)",
        against="the plain loop",
        ratio=statistics.median(probed / plain for probed, plain in pairs),
        allowed=program.allowed,
    )


def _seconds(program: Program, *, probed: bool) -> float:
    """Train once; without warm-up steps and without building, which no step pays for."""
    model, loader, loss_function, optimizer = program.parts()
    batches = _endless(loader)
    with tempfile.TemporaryDirectory() as directory:
        trace = TraceWriter(Path(directory, "trace"))
        probe = Probe(trace=trace, max_steps=program.steps + 2)
        if probed:
            probe.install()
        try:
            train(model, loss_function, optimizer, next(batches))
            started = time.perf_counter()
            for _ in range(program.steps):
                train(model, loss_function, optimizer, next(batches))
            return time.perf_counter() - started
        finally:
            if probed:
                probe.uninstall()
            trace.close()


def _endless(loader: Iterable[Any]) -> Any:
    while True:
        yield from loader
