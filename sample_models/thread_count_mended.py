"""The classifier of wide rows of thread_count.py, mended: the program fixes the number of threads.

Expect from `repro-audit check sample_models/thread_count_mended.py:build`: reproducible (exit 0),
also under `--require settings`. Every machine then splits the sums in two, however many cores it
has. Other causes remain on another machine, such as its instruction set.
"""

# expect broke = []
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

FEATURES, WIDTH, CLASSES = 64, 128, 10


def rows() -> tuple[Tensor, Tensor]:
    """2,048 rows of features and their classes; always the same, as if read from a file."""
    generator = torch.Generator().manual_seed(2012)
    features = torch.randn(2048, FEATURES, generator=generator)
    scores = features @ torch.randn(FEATURES, CLASSES, generator=generator)
    return features, scores.argmax(dim=1)


def build(
    seed: int = 0,
) -> tuple[nn.Module, DataLoader[Any], nn.Module, torch.optim.Optimizer]:
    """A classifier of one hidden layer, and the rows in large batches."""
    torch.set_num_threads(2)
    torch.manual_seed(seed)
    loader = DataLoader(TensorDataset(*rows()), batch_size=256, shuffle=True)
    model = nn.Sequential(
        nn.Linear(FEATURES, WIDTH), nn.LayerNorm(WIDTH), nn.GELU(), nn.Linear(WIDTH, CLASSES)
    )
    return model, loader, nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=0.05)
