"""A forecaster that centres its inputs by a running mean, which no checkpoint holds.

Expect from `repro-audit check sample_models/checkpoint_resume.py:build`: `checkpoint-resume`
broke, alone but for `cpu-isa`. That is a promise of the scope `settings`, so the verdict is
reproducible (exit 0) unless `--require settings` is given (exit 1).

The mean is a plain attribute of the model, so it is no part of its `state_dict`. A training that
is resumed from a checkpoint begins it at zero again, feeds the trained layers inputs that they
have not seen so far, and never comes back to the numbers of a training in one go.

The mend is a buffer: see checkpoint_resume_mended.py. The prices are synthetic.
"""

# expect broke = ["checkpoint-resume"]
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


def prices() -> tuple[Tensor, Tensor]:
    """96 windows of 5 prices, and the price that comes next; always the same, as if read from a file."""
    generator = torch.Generator().manual_seed(1929)
    walk = 20 + torch.randn(101, generator=generator).cumsum(0)
    windows = walk.unfold(0, 6, 1)
    return windows[:, :5].clone(), windows[:, 5:].clone()


class Forecaster(nn.Module):
    """Two layers on prices that are centred by the mean of all batches so far."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.zeros(1)
        self.layers = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, windows: Tensor) -> Tensor:
        """The next price."""
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * windows.mean()
        centred: Tensor = self.layers(windows - self.mean)
        return centred + self.mean


def build(
    seed: int = 0,
) -> tuple[nn.Module, DataLoader[Any], nn.Module, torch.optim.Optimizer]:
    """The forecaster, on one thread, and the windows in random order."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    loader = DataLoader(TensorDataset(*prices()), batch_size=12, shuffle=True)
    model = Forecaster()
    return model, loader, nn.MSELoss(), torch.optim.Adam(model.parameters(), lr=0.01)
