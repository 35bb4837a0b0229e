"""The classifier of cudnn_benchmark.py, mended: melodies are padded to one length, whatever is set.

Expect from `repro-audit check sample_models/cudnn_benchmark_mended.py:build`: reproducible (exit
0), also under `--require settings`. One shape is what the benchmark likes best.
"""

# expect broke = []
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

LONGEST = 24


def melodies() -> list[tuple[Tensor, int]]:
    """64 melodies of 8 to 24 notes that rise or fall; always the same, as if read from a file."""
    generator = torch.Generator().manual_seed(1685)
    found = []
    for number in range(64):
        length = int(torch.randint(8, LONGEST + 1, (1,), generator=generator))
        steps = torch.randn(length, generator=generator) + (0.5 if number % 2 else -0.5)
        found.append((steps.cumsum(0), number % 2))
    return found


def padded(batch: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    """Melodies as rows of one channel, and whether each rises."""
    rows = [nn.functional.pad(melody, (0, LONGEST - len(melody))) for melody, _ in batch]
    return torch.stack(rows).unsqueeze(1), torch.tensor([rises for _, rises in batch])


class Classifier(nn.Module):
    """A convolution over time, its mean, and a layer on top."""

    def __init__(self) -> None:
        super().__init__()
        self.notes = nn.Conv1d(1, 8, 3, padding=1)
        self.head = nn.Linear(8, 2)

    def forward(self, rows: Tensor) -> Tensor:
        """Scores of falling and rising."""
        scores: Tensor = self.head(torch.relu(self.notes(rows)).mean(dim=2))
        return scores


def build(
    seed: int = 0,
) -> tuple[nn.Module, DataLoader[Any], nn.Module, torch.optim.Optimizer]:
    """The classifier, on one thread, and the melodies in random order."""
    torch.set_num_threads(1)  # whatever the machine has
    torch.manual_seed(seed)
    model = Classifier()
    loader: DataLoader[Any] = DataLoader(
        melodies(),  # type: ignore[arg-type]  # a list is all that it takes
        batch_size=8,
        shuffle=True,
        collate_fn=padded,
    )
    return model, loader, nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=0.1)
