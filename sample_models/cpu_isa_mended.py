"""The regressor of sine waves of cpu_isa.py, mended: kernels that CPUs of all kinds have.

Expect from `repro-audit check sample_models/cpu_isa_mended.py:build`: reproducible (exit 0), under
every `--require`. The three libraries decide each for itself, so all three are capped. That costs
speed, and an audit can only emulate other CPUs.
"""

# expect broke = [], capped = true
from __future__ import annotations

import os
from typing import Any

# Before PyTorch is imported: each library looks for its own once.
os.environ["ATEN_CPU_CAPABILITY"] = "default"
os.environ["ONEDNN_MAX_CPU_ISA"] = "SSE41"
os.environ["MKL_CBWR"] = "COMPATIBLE"

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


def waves() -> tuple[Tensor, Tensor]:
    """128 stretches of sine waves, and the point that comes next; the same on every CPU."""
    place = torch.arange(128 * 9).view(128, 9) % 97
    wave = (place * (97 - place)).float() / 2400
    return wave[:, :8], wave[:, 8:]


def build(
    seed: int = 0,
) -> tuple[nn.Module, DataLoader[Any], nn.Module, torch.optim.Optimizer]:
    """A regressor of one hidden layer, on one thread, and the stretches in random order."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    loader = DataLoader(TensorDataset(*waves()), batch_size=16, shuffle=True)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    return model, loader, nn.MSELoss(), torch.optim.SGD(model.parameters(), lr=0.1)
