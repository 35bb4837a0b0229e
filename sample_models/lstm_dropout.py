"""A forecaster with an LSTM whose dropout is cuDNN's own, warmed up before it is trained.

Expect from `repro-audit check sample_models/lstm_dropout.py:build`, on a machine with a CUDA
device: `lstm-dropout` broke, and `process-reuse` is relieved of it. That is a promise of the scope
`settings`, so the verdict is reproducible (exit 0) unless `--require settings` is given. Without a
device nothing breaks, and `lstm-dropout` is not exercised.

A second run in the process puts the generators back to where the first one began to train, which
should change nothing. cuDNN keeps the state of an RNN's dropout to itself, and no generator has it.

The mend is `nn.Dropout` between layers of their own: see lstm_dropout_mended.py. The series is
synthetic.
"""

# expect broke = ["lstm-dropout"], cuda = true
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
        self.lstm = nn.LSTM(1, 8, num_layers=2, dropout=0.5, batch_first=True)
        self.head = nn.Linear(8, 1)

    def forward(self, rows: Tensor) -> Tensor:
        """The next value of each stretch."""
        value: Tensor = self.head(self.lstm(rows)[0][:, -1])
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
