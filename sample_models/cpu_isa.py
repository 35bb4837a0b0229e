"""A regressor of sine waves, whose bits are those of the CPU that it runs on.

Expect from `repro-audit check sample_models/cpu_isa.py:build`: `cpu-isa` broke, alone. That is a
promise of the scope `portable`, so the verdict is reproducible (exit 0) unless `--require
portable` is given (exit 1). It is emulated: kernels are capped below what this CPU offers.

PyTorch, oneDNN and MKL take the best kernels for the CPU that they find. A CPU without fused
multiply-add scales the initial weights with two roundings instead of one, so the first weights
differ in their last bits, and everything from there on. Nearly every program does this.

The mend is to cap all three libraries: see cpu_isa_mended.py. The waves are synthetic.
"""

# expect broke = ["cpu-isa"]
from __future__ import annotations

from typing import Any

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
