"""A classifier of sequences that are padded to one length with whatever is in memory.

Expect from `repro-audit check sample_models/uninitialized_memory.py:build`: `uninitialized-memory`
broke, the verdict is not reproducible (exit 1).

The batches are made with `torch.empty`, and only the part that a sequence covers is written. The
rest holds zeros as long as the system hands out new memory, and remains of other tensors when it
does not; the mean over time reads all of it.

The mend that the report prints, `torch.zeros`, says what the padding is: see
uninitialized_memory_mended.py. The sequences are synthetic.
"""

# expect broke = ["uninitialized-memory"]
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

LONGEST, FEATURES = 24, 6


class MeanPool(nn.Module):
    """Classifies by the mean over time."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(FEATURES, 16)
        self.head = nn.Linear(16, 2)

    def forward(self, padded: Tensor) -> Tensor:
        """Scores of two classes."""
        return self.head(torch.relu(self.layer(padded)).mean(1))


def pad(samples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    """One batch out of sequences of different lengths."""
    batch = torch.empty(len(samples), LONGEST, FEATURES)
    for row, (sequence, _) in zip(batch, samples, strict=True):
        row[: len(sequence)] = sequence
    return batch, torch.tensor([label for _, label in samples])


def sequences(generator: torch.Generator) -> list[tuple[Tensor, int]]:
    """Random walks that drift up or down."""
    found = []
    for number in range(64):
        length = 8 + number % (LONGEST - 8)
        drift = 0.2 if number % 2 else -0.2
        steps = torch.randn(length, FEATURES, generator=generator) + drift
        found.append((steps.cumsum(0) / length, number % 2))
    return found


def build(seed: int = 0) -> tuple[nn.Module, DataLoader[Any], nn.Module]:
    """The classifier and its padded batches."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # whatever the machine has
    data: Any = sequences(torch.Generator().manual_seed(seed))
    loader = DataLoader(data, batch_size=8, shuffle=True, collate_fn=pad)
    return MeanPool(), loader, nn.CrossEntropyLoss()
