"""A small classifier with nothing wrong with it: seeded, one process, no files.

Expect from `repro-audit check sample_models/clean_mlp.py:build`: reproducible (exit 0), under
every `--require`. It is what the benchmark measures a whole audit on. The two spirals are
synthetic.
"""

# expect broke = [], capped = true
from __future__ import annotations

import os
from typing import Any

# Before PyTorch is imported: kernels that every x86 CPU has, for `--require portable`.
os.environ["ATEN_CPU_CAPABILITY"] = "default"
os.environ["ONEDNN_MAX_CPU_ISA"] = "SSE41"
os.environ["MKL_CBWR"] = "COMPATIBLE"

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


def two_spirals() -> tuple[Tensor, Tensor]:
    """256 points of the plane on two spirals, and which one each is on."""
    arm = torch.arange(256) % 2
    angle = torch.rand(256).sqrt() * 3 * torch.pi
    turned = angle + torch.pi * arm
    points = torch.stack((turned.cos() * angle, turned.sin() * angle), dim=1) / 10
    return points + 0.02 * torch.randn(256, 2), arm


def build(
    seed: int = 0,
) -> tuple[nn.Module, DataLoader[Any], nn.Module, torch.optim.Optimizer]:
    """A classifier of two hidden layers, and the points in random order."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # whatever the machine has
    loader = DataLoader(TensorDataset(*two_spirals()), batch_size=16, shuffle=True)
    model = nn.Sequential(
        nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2)
    )
    return model, loader, nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters(), lr=0.01)
