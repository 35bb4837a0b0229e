"""The forecast of three_causes.py, with all three causes mended.

Expect from `repro-audit check sample_models/three_causes_mended.py:build`: reproducible (exit 0),
also under `--require settings`.
  - `artifact-cache`: the first run, too, trains on what it finds in
    `.cache/three_causes_mended.pt`;
  - `num-workers`: the noise follows from the day and the epoch, which the sampler passes along;
  - `process-reuse`: build() makes the sampler that shuffles the batches.
"""

# expect broke = []
from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

if TYPE_CHECKING:
    from collections.abc import Iterator

CACHE = Path(".cache", "three_causes_mended.pt")


def load() -> Tensor:
    """A year's load, hour by hour; always the same, as if read from a file."""
    hours = np.arange(24 * 365)
    daily, yearly = np.sin(2 * np.pi * hours / 24), np.cos(2 * np.pi * hours / 8760)
    noise = np.random.default_rng(2003).normal(size=len(hours))
    return torch.from_numpy(40 + 8 * daily + 5 * yearly + noise).float()


@functools.cache
def days() -> Tensor:
    """A row a day of 24 standardised loads; always from the cache."""
    if not CACHE.exists():
        series = load()
        found = ((series - series.mean()) / series.std()).reshape(-1, 24)
        CACHE.parent.mkdir(exist_ok=True)
        torch.save(found.half(), CACHE)  # half the space on disk
    cached: Tensor = torch.load(CACHE, weights_only=True)
    return cached.float()


class EpochSampler(Sampler[tuple[int, int]]):
    """All indices in random order, each with the number of the epoch, so that workers know it too."""

    def __init__(self, seed: int, count: int) -> None:
        self.seed = seed
        self.count = count
        self.epoch = 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        order = np.random.default_rng((self.seed, epoch)).permutation(self.count)
        return ((epoch, int(index)) for index in order)

    def state_dict(self) -> dict[str, int]:
        """The epoch that comes next, for checkpoints."""
        return {"epoch": self.epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on with the epoch that came next."""
        self.epoch = state["epoch"]


class Days(Dataset[tuple[Tensor, Tensor]]):
    """A day with noise on top, against overfitting, and the day that follows it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.days = days()

    def __len__(self) -> int:
        return len(self.days) - 1

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Those that `(epoch, index)` stands for, as rows of 24 hours; the noise is that epoch's."""
        epoch, index = key
        generator = np.random.default_rng((self.seed, epoch, index))
        noise = generator.normal(scale=0.05, size=24).astype(np.float32)
        return self.days[index] + torch.from_numpy(noise), self.days[index + 1]


def build(
    seed: int = 0, num_workers: int = 0
) -> tuple[nn.Module, DataLoader[Any], nn.Module, torch.optim.Optimizer]:
    """A small model that predicts the next day, and the days in random order."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # whatever the machine has
    dataset = Days(seed)
    sampler = EpochSampler(seed, len(dataset))
    loader = DataLoader(dataset, batch_size=16, sampler=sampler, num_workers=num_workers)
    model = nn.Sequential(nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 24))
    return model, loader, nn.MSELoss(), torch.optim.Adam(model.parameters(), lr=0.01)
