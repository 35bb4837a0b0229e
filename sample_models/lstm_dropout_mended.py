"""The forecaster of lstm_dropout.py, mended: its dropout draws from the device's generator alone.

Expect from `repro-audit check sample_models/lstm_dropout_mended.py:build`: reproducible (exit 0),
also under `--require settings`, with a CUDA device or without.
"""

# expect broke = []
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from repro_audit import rng

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BEGAN: list[rng.GeneratorStates] = []


def waves() -> tuple[Tensor, Tensor]:
    """64 stretches of a noisy wave, and the value after each; always the same, as if read from a file."""
    generator = torch.Generator().manual_seed(1997)
    series = torch.arange(80.0).sin() + 0.1 * torch.randn(80, generator=generator)
    windows = series.unfold(0, 13, 1)[:64, :, None]
    return windows[:, :-1].contiguous(), windows[:, -1].contiguous()


class Forecaster(nn.Module):
    """Two layers with dropout between them, and the last hidden state to a value."""

    def __init__(self) -> None:
        super().__init__()
        self.lower = nn.LSTM(1, 8, batch_first=True)
        self.dropout = nn.Dropout(0.5)
        self.upper = nn.LSTM(8, 8, batch_first=True)
        self.head = nn.Linear(8, 1)

    def forward(self, rows: Tensor) -> Tensor:
        """The next value of each stretch."""
        hidden = self.dropout(self.lower(rows)[0])
        value: Tensor = self.head(self.upper(hidden)[0][:, -1])
        return value


def build(
    seed: int = 0,
) -> tuple[nn.Module, DataLoader[Any], nn.Module, torch.optim.Optimizer]:
    """The forecaster on the device, warmed up, and the stretches in random order."""
    torch.set_num_threads(1)  # whatever the machine has
    torch.manual_seed(seed)
    model = Forecaster().to(DEVICE)
    rows, values = waves()
    model(rows[:8].to(DEVICE))  # allocates what training will need
    if BEGAN:  # a later run in this process trains from where the first one did
        rng.restore(BEGAN[0])
    BEGAN.append(rng.snapshot())
    loader = DataLoader(TensorDataset(rows, values), batch_size=8, shuffle=True)
    return model, loader, nn.MSELoss(), torch.optim.SGD(model.parameters(), lr=0.1)
