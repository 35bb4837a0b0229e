"""The classifier of signals of num_workers.py, mended: the noise follows from the sample's index and the epoch.

Expect from `repro-audit check sample_models/num_workers_mended.py:build`: reproducible (exit 0),
also under `--require settings`. The sampler passes the epoch along with each index. So it does not
matter which process adds the noise, and 0, 1 and 2 workers give the same model.
"""

# expect broke = []
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

if TYPE_CHECKING:
    from collections.abc import Iterator

LENGTH = 32


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


class Signals(Dataset[tuple[Tensor, int]]):
    """Sine waves of four frequencies; every epoch adds fresh noise to each."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __len__(self) -> int:
        return 128

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        """The noisy signal that `(epoch, index)` stands for, and the number of its frequency."""
        epoch, index = key
        generator = np.random.default_rng((self.seed, epoch, index))
        label = index % 4
        noise = generator.normal(scale=0.3, size=LENGTH)
        return torch.from_numpy((wave(label, index) + noise).astype(np.float32)), label


def wave(label: int, phase: int) -> npt.NDArray[np.float64]:
    """A clean signal."""
    return np.sin(np.linspace(0, 2 * np.pi * (label + 1), LENGTH) + phase)


def build(
    seed: int = 0,
) -> tuple[nn.Module, DataLoader[Any], nn.Module, torch.optim.Optimizer]:
    """A small classifier, and the signals in random order."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # whatever the machine has
    signals = Signals(seed)
    sampler = EpochSampler(seed, len(signals))
    loader = DataLoader(signals, batch_size=8, sampler=sampler, num_workers=2)
    model = nn.Sequential(nn.Linear(LENGTH, 16), nn.ReLU(), nn.Linear(16, 4))
    return model, loader, nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters(), lr=0.01)
