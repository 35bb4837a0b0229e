"""A classifier of texts of uneven length, whose loader hands out whichever batch is ready first.

Expect from `repro-audit check sample_models/worker_order.py:build`: `worker-order` broke, the
verdict is not reproducible (exit 1).

With `in_order=False` a worker that has long texts holds up nobody. But then the speed of the
workers decides the order of the batches, and so every step of the training. Other numbers of
workers change nothing: the batches are the same.

The mend that the report prints, batches in order, is in worker_order_mended.py. The texts are
random words.
"""

# expect broke = ["worker-order"]
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

WORDS, TEXTS = 50, 64


class Texts(Dataset[tuple[Tensor, int]]):
    """Bags of words; the label says which half of the words is the more frequent one."""

    def __len__(self) -> int:
        return TEXTS

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """The counts of a text's words, and its label."""
        own = torch.Generator().manual_seed(index)
        words = torch.randint(WORDS, (20 + 180 * (index % 2),), generator=own)
        counts = torch.bincount(words, minlength=WORDS).float()
        return counts / len(words), int(counts[: WORDS // 2].sum() > counts[WORDS // 2 :].sum())


def build(seed: int = 0) -> tuple[nn.Module, DataLoader[Any], nn.Module]:
    """The classifier and its loader."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # whatever the machine has
    loader = DataLoader(Texts(), batch_size=4, shuffle=True, num_workers=2, in_order=False)
    model = nn.Sequential(nn.Linear(WORDS, 16), nn.ReLU(), nn.Linear(16, 2))
    return model, loader, nn.CrossEntropyLoss()
