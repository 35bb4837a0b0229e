"""A classifier whose seed reaches the CPU's generator and no other.

Expect from `repro-audit check sample_models/cuda_rng.py:build`, on a machine with a CUDA device:
not reproducible (exit 1); `cuda-rng` broke, as the dropout draws on the device. Without a device
it is reproducible (exit 0) and `cuda-rng` not exercised: all draws are the CPU's, which is seeded.

The mend is `torch.manual_seed`, which reaches every device: see cuda_rng_mended.py. The points are
synthetic.
"""

# expect broke = ["cuda-rng"], cuda = true
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def rings() -> tuple[Tensor, Tensor]:
    """192 points of the plane on two rings, and which ring each is on; as if read from a file."""
    generator = torch.Generator().manual_seed(1971)
    ring = torch.arange(192) % 2
    angle = 2 * torch.pi * torch.rand(192, generator=generator)
    points = torch.stack((angle.cos(), angle.sin()), dim=1) * (1 + ring[:, None])
    return points + 0.1 * torch.randn(192, 2, generator=generator), ring


def build(
    seed: int = 0,
) -> tuple[nn.Module, DataLoader[Any], nn.Module, torch.optim.Optimizer]:
    """A small classifier with dropout on the device, and the points in random order."""
    torch.set_num_threads(1)  # whatever the machine has
    torch.default_generator.manual_seed(seed)
    model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 2))
    loader = DataLoader(TensorDataset(*rings()), batch_size=16, shuffle=True)
    optimizer = torch.optim.SGD(model.to(DEVICE).parameters(), lr=0.1)
    return model, loader, nn.CrossEntropyLoss(), optimizer
