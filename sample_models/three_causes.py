"""A forecast of a power grid's load in which three causes are at work at once.

Expect from `repro-audit check sample_models/three_causes.py:build`: not reproducible (exit 1),
with three sources that broke and have nothing to do with each other:
  - `artifact-cache` (scope `rerun`): the first run computes the days in 32 bits, later ones read
    them from `.cache/three_causes.pt`, in 16;
  - `num-workers` (scope `settings`): `__getitem__` adds noise from NumPy's global generator,
    which is another one in each worker;
  - `process-reuse` (scope `settings`): the batches are shuffled by a generator at module level,
    which a second run in the same process finds where the first one left it.

Whoever mends only one still gets other numbers. All three show in the first batch, so comparing
two runs by hand would blame the wrong line. See three_causes_mended.py; the load is synthetic.
"""

# expect broke = ["artifact-cache", "num-workers", "process-reuse"]
from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

CACHE = Path(".cache", "three_causes.pt")
SHUFFLING = torch.Generator().manual_seed(0)


def load() -> Tensor:
    """A year's load, hour by hour; always the same, as if read from a file."""
    hours = np.arange(24 * 365)
    daily, yearly = np.sin(2 * np.pi * hours / 24), np.cos(2 * np.pi * hours / 8760)
    noise = np.random.default_rng(2003).normal(size=len(hours))
    return torch.from_numpy(40 + 8 * daily + 5 * yearly + noise).float()


@functools.cache
def days() -> Tensor:
    """A row a day of 24 standardised loads; from the cache, where there is one."""
    if CACHE.exists():
        cached: Tensor = torch.load(CACHE, weights_only=True)
        return cached.float()
    series = load()
    found = ((series - series.mean()) / series.std()).reshape(-1, 24)
    CACHE.parent.mkdir(exist_ok=True)
    torch.save(found.half(), CACHE)  # half the space on disk
    return found


class Days(Dataset[tuple[Tensor, Tensor]]):
    """A day with noise on top, against overfitting, and the day that follows it."""

    def __init__(self) -> None:
        self.days = days()

    def __len__(self) -> int:
        return len(self.days) - 1

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Both as rows of 24 hours."""
        noise = np.random.normal(scale=0.05, size=24).astype(np.float32)
        return self.days[index] + torch.from_numpy(noise), self.days[index + 1]


def build(
    seed: int = 0, num_workers: int = 0
) -> tuple[nn.Module, DataLoader[Any], nn.Module, torch.optim.Optimizer]:
    """A small model that predicts the next day, and the days in random order."""
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # whatever the machine has
    loader = DataLoader(
        Days(), batch_size=16, shuffle=True, num_workers=num_workers, generator=SHUFFLING
    )
    model = nn.Sequential(nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 24))
    return model, loader, nn.MSELoss(), torch.optim.Adam(model.parameters(), lr=0.01)
