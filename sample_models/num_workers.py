"""A classifier of signals to which `__getitem__` adds noise from NumPy's global generator, with two workers.

Expect from `repro-audit check sample_models/num_workers.py:build`: `num-workers` broke, alone.
That is a promise of the scope `settings`, so the verdict is reproducible (exit 0) unless
`--require settings` is given (exit 1).

Each worker is a process with a generator of its own, which PyTorch seeds by the worker's number;
without workers the noise comes from the main process. So the number of workers decides which
noise a signal gets, and 0, 1 and 2 workers give three different models, each of them the same on
every run. The first batch differs already.

The mend is to draw by the sample's index and the epoch: see num_workers_mended.py. The signals
are synthetic.
"""

# expect broke = ["num-workers"]
from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

LENGTH = 32


class Signals(Dataset[tuple[Tensor, int]]):
    """Sine waves of four frequencies; every look at one adds fresh noise."""

    def __len__(self) -> int:
        return 128

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """A noisy signal and the number of its frequency."""
        label = index % 4
        noise = np.random.normal(scale=0.3, size=LENGTH)
        return torch.from_numpy((wave(label, index) + noise).astype(np.float32)), label


def wave(label: int, phase: int) -> npt.NDArray[np.float64]:
    """A clean signal."""
    return np.sin(np.linspace(0, 2 * np.pi * (label + 1), LENGTH) + phase)


def build(
    seed: int = 0,
) -> tuple[nn.Module, DataLoader[Any], nn.Module, torch.optim.Optimizer]:
    """A small classifier, and the signals in random order."""
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # whatever the machine has
    loader = DataLoader(Signals(), batch_size=8, shuffle=True, num_workers=2)
    model = nn.Sequential(nn.Linear(LENGTH, 16), nn.ReLU(), nn.Linear(16, 4))
    return model, loader, nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters(), lr=0.01)
