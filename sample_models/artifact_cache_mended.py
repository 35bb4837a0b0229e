"""The regression of artifact_cache.py, mended: the first run, too, trains on what it finds in the cache.

Expect from `repro-audit check sample_models/artifact_cache_mended.py:build`: reproducible (exit 0),
also under `--require settings`. The file `.cache/artifact_cache_mended.pt` is still in 16 bits; but
what was just written is read back, so the first run trains on the same rounded numbers as every
later one.
"""

# expect broke = []
from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

CACHE = Path(".cache", "artifact_cache_mended.pt")


def readings() -> Tensor:
    """A day of a sensor's readings, two a minute; always the same, as if read from a file."""
    hours = np.linspace(0, 24, 2880)
    noise = np.random.default_rng(1960).normal(scale=0.2, size=2880)
    return torch.from_numpy(np.sin(hours) + np.sin(7 * hours) / 2 + noise).float()


@functools.cache
def windows() -> Tensor:
    """Standardised windows of 16 readings and the one that follows; always from the cache."""
    if not CACHE.exists():
        series = readings()
        found = ((series - series.mean()) / series.std()).unfold(0, 17, 10)
        CACHE.parent.mkdir(exist_ok=True)
        torch.save(found.half(), CACHE)  # half the space on disk
    cached: Tensor = torch.load(CACHE, weights_only=True)
    return cached.float()


def build(
    seed: int = 0,
) -> tuple[nn.Module, DataLoader[Any], nn.Module, torch.optim.Optimizer]:
    """A small model that predicts the next reading, and the windows in random order."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # whatever the machine has
    data = windows()
    loader = DataLoader(TensorDataset(data[:, :-1], data[:, -1:]), batch_size=16, shuffle=True)
    model = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1))
    return model, loader, nn.MSELoss(), torch.optim.Adam(model.parameters(), lr=0.01)
