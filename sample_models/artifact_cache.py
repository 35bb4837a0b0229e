"""A regression on features that the first run computes and caches, in half precision, for the runs after it.

Expect from `repro-audit check sample_models/artifact_cache.py:build`: not reproducible (exit 1);
`artifact-cache` broke, alone. The first run trains on what it computed, in 32 bits; every later
run trains on what it finds in the file `.cache/artifact_cache.pt`, which was rounded to 16 bits.
So the first run is the odd one out, and nobody can repeat it without knowing of the file. The
first batch differs already.

The mend is to read back what was written, in the first run too: see artifact_cache_mended.py. The
readings are synthetic.
"""

# expect broke = ["artifact-cache"]
from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

CACHE = Path(".cache", "artifact_cache.pt")


def readings() -> Tensor:
    """A day of a sensor's readings, two a minute; always the same, as if read from a file."""
    hours = np.linspace(0, 24, 2880)
    noise = np.random.default_rng(1960).normal(scale=0.2, size=2880)
    return torch.from_numpy(np.sin(hours) + np.sin(7 * hours) / 2 + noise).float()


@functools.cache
def windows() -> Tensor:
    """Standardised windows of 16 readings and the one that follows; from the cache, if possible."""
    if CACHE.exists():
        cached: Tensor = torch.load(CACHE, weights_only=True)
        return cached.float()
    series = readings()
    found = ((series - series.mean()) / series.std()).unfold(0, 17, 10)
    CACHE.parent.mkdir(exist_ok=True)
    torch.save(found.half(), CACHE)  # half the space on disk
    return found


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
