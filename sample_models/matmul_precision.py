"""A regressor that is careful where matrix products are rounded, and so depends on who runs it.

Expect from `repro-audit check sample_models/matmul_precision.py:build`: `matmul-precision` broke,
alone but for `cpu-isa`. That is a promise of the scope `settings`, so the verdict is reproducible
(exit 0) unless `--require settings` is given (exit 1).

Adam divides by very small numbers, and the program gives it a larger epsilon where products are
computed in TF32. It asks `torch.get_float32_matmul_precision()`, but never sets it: a notebook
that has set "high" for a model before it, or a launcher that does so for speed, changes the
training even on a CPU, where no product is computed otherwise.

The mend is to set the precision first: see matmul_precision_mended.py. The rows are synthetic.
"""

# expect broke = ["matmul-precision"]
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


def rows() -> tuple[Tensor, Tensor]:
    """96 rows of features and their targets; always the same, as if read from a file."""
    generator = torch.Generator().manual_seed(1970)
    features = torch.randn(96, 6, generator=generator)
    return features, (features[:, :3] - features[:, 3:]).tanh().sum(1, keepdim=True)


def epsilon() -> float:
    """What Adam adds to its denominators: more where products have few digits."""
    return 1e-8 if torch.get_float32_matmul_precision() == "highest" else 1e-4


def build(
    seed: int = 0,
) -> tuple[nn.Module, DataLoader[Any], nn.Module, torch.optim.Optimizer]:
    """A regressor of one hidden layer, and the rows in random order."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # whatever the machine has
    loader = DataLoader(TensorDataset(*rows()), batch_size=12, shuffle=True)
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, eps=epsilon())
    return model, loader, nn.MSELoss(), optimizer
