"""A classifier of wide rows, large enough for PyTorch to split its sums among threads.

Expect from `repro-audit check sample_models/thread_count.py:build`: `thread-count` broke, alone.
That is a promise of the scope `portable`, so the verdict is reproducible (exit 0) unless
`--require portable` is given (exit 1).

Floating-point addition is not associative. PyTorch takes as many threads as the machine has
cores, and each adds up its share, so a machine with other cores rounds the sums over a batch in
another way. The first gradients differ in their last bits, and the parameters from there on.

The mend is to fix the number, `torch.set_num_threads(2)`: see thread_count_mended.py. The rows
are synthetic.
"""

# expect broke = ["thread-count"]
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
    torch.manual_seed(seed)
    loader = DataLoader(TensorDataset(*rows()), batch_size=256, shuffle=True)
    model = nn.Sequential(
        nn.Linear(FEATURES, WIDTH), nn.LayerNorm(WIDTH), nn.GELU(), nn.Linear(WIDTH, CLASSES)
    )
    return model, loader, nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=0.05)
