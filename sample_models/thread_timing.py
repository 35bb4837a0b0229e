"""A regression whose training set is read by two threads that put into one queue.

Expect from `repro-audit check sample_models/thread_timing.py:build`: `thread-timing` broke, the
verdict is not reproducible (exit 1).

Each thread reads its own shard and puts what it reads into the queue that both share. Which
thread is faster decides the order of the training set, and with it every step.

The mend, results taken in the order in which the shards were asked for, is in
thread_timing_mended.py. The shards are computed, in place of files.
"""

# expect broke = ["thread-timing"]
from __future__ import annotations

import queue
import threading
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

SHARDS, ROWS = 2, 32


def read(shard: int) -> Tensor:
    """The rows of one shard."""
    return torch.linspace(shard, shard + 1, ROWS * 4).sin().view(ROWS, 4)


def read_into(rows: queue.Queue[Tensor], shard: int) -> None:
    """What each thread does."""
    for row in read(shard):
        rows.put(row)


def load() -> Tensor:
    """All rows, as they came."""
    rows: queue.Queue[Tensor] = queue.Queue()
    readers = [threading.Thread(target=read_into, args=(rows, shard)) for shard in range(SHARDS)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    return torch.stack([rows.get() for _ in range(rows.qsize())])


def build(seed: int = 0) -> tuple[nn.Module, DataLoader[Any]]:
    """A small regression on what the threads have read."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # whatever the machine has
    x = load()
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    return model, DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=8)
