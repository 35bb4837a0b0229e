"""A classifier of measurements whose training set is drawn by a generator that nobody seeded.

Expect from `repro-audit check sample_models/os_entropy.py:build`: not reproducible (exit 1);
`os-entropy` broke, alone.

`build` seeds Python, NumPy and PyTorch, as so many `seed_everything` functions do. But NumPy's
newer generators share no state with `np.random.seed`: `default_rng()` without a seed asks the
operating system where to start. So every run holds out other measurements, and the first batch
differs.

The mend is `default_rng(seed)`: see os_entropy_mended.py.
"""

# expect broke = ["os-entropy"]
from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


def measurements() -> tuple[Tensor, Tensor]:
    """Two hundred flowers of three kinds, always the same, as if read from a file."""
    rng = np.random.default_rng(1936)
    kind = rng.integers(3, size=200)
    centres = np.array([[5.0, 3.4, 1.5, 0.2], [5.9, 2.8, 4.3, 1.3], [6.6, 3.0, 5.6, 2.0]])
    sizes = centres[kind] + 0.3 * rng.normal(size=(200, 4))
    return torch.from_numpy(sizes).float(), torch.from_numpy(kind)


def seed_everything(seed: int) -> None:
    """Seed all that has a global state."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def build(
    seed: int = 0,
) -> tuple[nn.Module, DataLoader[Any], nn.Module, torch.optim.Optimizer]:
    """A small classifier, and four fifths of the measurements."""
    seed_everything(seed)
    sizes, kind = measurements()
    training = np.random.default_rng().permutation(len(sizes))[: len(sizes) * 4 // 5]
    loader = DataLoader(TensorDataset(sizes[training], kind[training]), batch_size=16)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    return model, loader, nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters(), lr=0.01)
