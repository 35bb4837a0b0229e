"""The regression of thread_timing.py, mended: results are taken in the order of the shards.

Expect from `repro-audit check sample_models/thread_timing_mended.py:build`: reproducible (exit 0),
under every `--require`.

The shards are still read side by side, but `map` gives their rows in the order in which they were
asked for, whichever is ready first.
"""

# expect broke = []
from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

SHARDS, ROWS = 2, 32


def read(shard: int) -> Tensor:
    """The rows of one shard."""
    return torch.linspace(shard, shard + 1, ROWS * 4).sin().view(ROWS, 4)


def load() -> Tensor:
    """All rows, by shard."""
    with ThreadPoolExecutor(SHARDS) as pool:
        return torch.cat(list(pool.map(read, range(SHARDS))))


def build(seed: int = 0) -> tuple[nn.Module, DataLoader[Any]]:
    """A small regression on what the threads have read."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # whatever the machine has
    x = load()
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    return model, DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=8)
