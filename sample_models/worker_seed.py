"""A classifier of signals whose dataset owns the generator that its noise comes from, with two workers.

Expect from `repro-audit check sample_models/worker_seed.py:build`: `worker-seed` broke, and
`num-workers` with it. Both are promises of the scope `settings`, so the verdict is reproducible
(exit 0) unless `--require settings` is given (exit 1).

Each worker starts with a copy of the dataset, so both have the same generator in the same state:
the two draw the same noise, and draw it again in the next epoch, when the workers start anew.
What should be random repeats, without any run differing from another. It cannot come alone: where
the noise hangs on who fetches the sample, it hangs on the number of workers too.

The mend that the report prints, a generator from the seed that PyTorch gives each worker, parts
the streams. Drawing by the sample's index and the epoch mends both: see worker_seed_mended.py.
The signals are synthetic.
"""

# expect broke = ["num-workers", "worker-seed"]
from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

LENGTH = 32


class Signals(Dataset[tuple[Tensor, int]]):
    """Square waves of four frequencies; every look at one adds noise from the dataset's own generator."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)

    def __len__(self) -> int:
        return 128

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """A noisy signal and the number of its frequency."""
        label = index % 4
        noise = self.generator.normal(scale=0.3, size=LENGTH)
        return torch.from_numpy((wave(label, index) + noise).astype(np.float32)), label


def wave(label: int, phase: int) -> npt.NDArray[np.float64]:
    """A clean signal."""
    return np.sign(np.sin(np.linspace(0, 2 * np.pi * (label + 1), LENGTH) + phase))


def build(
    seed: int = 0,
) -> tuple[nn.Module, DataLoader[Any], nn.Module, torch.optim.Optimizer]:
    """A small classifier, and the signals in random order."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # whatever the machine has
    loader = DataLoader(Signals(seed), batch_size=8, shuffle=True, num_workers=2)
    model = nn.Sequential(nn.Linear(LENGTH, 16), nn.ReLU(), nn.Linear(16, 4))
    return model, loader, nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters(), lr=0.01)
