"""The regression of outside_input.py, mended.

Expect from `repro-audit check sample_models/outside_input_mended.py:build`: reproducible (exit 0);
nothing broke but `cpu-isa` on most machines.

The offset is a number in the program; what the command says is only printed.
"""

# expect broke = []
from __future__ import annotations

import subprocess
import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

NEWEST = 0.25


def build(
    seed: int = 0,
) -> tuple[nn.Module, DataLoader[tuple[torch.Tensor, ...]], nn.Module]:
    """A regression of a wave that begins at a fixed record."""
    torch.manual_seed(seed)
    said = subprocess.check_output(["date", "+%N"], text=True)  # noqa: S607 - any `date` will do
    sys.stdout.write(f"the newest record is {said}")
    x = (torch.arange(96.0).view(-1, 1) + NEWEST) / 96
    model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
    return model, DataLoader(TensorDataset(x, torch.sin(6 * x)), batch_size=12), nn.MSELoss()
