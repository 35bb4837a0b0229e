"""A regression whose data is cut where the newest record of a log ends, as a command says.

Expect from `repro-audit check sample_models/outside_input.py:build`: not reproducible (exit 1);
`outside-input` broke, alone.

The offset of the training set is what another program prints, and that goes on while the training
does: here the nanoseconds of `date` stand for the records of a log.

The mend takes the offset from the caller: see outside_input_mended.py.
"""

# expect broke = ["outside-input"]
from __future__ import annotations

import subprocess

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(
    seed: int = 0,
) -> tuple[nn.Module, DataLoader[tuple[torch.Tensor, ...]], nn.Module]:
    """A regression of a wave that begins at the newest record."""
    torch.manual_seed(seed)
    newest = int(subprocess.check_output(["date", "+%N"]))  # noqa: S607 - any `date` will do
    x = (torch.arange(96.0).view(-1, 1) + newest / 1e9) / 96
    model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
    return model, DataLoader(TensorDataset(x, torch.sin(6 * x)), batch_size=12), nn.MSELoss()
