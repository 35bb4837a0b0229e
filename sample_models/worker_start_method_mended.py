"""The classifier of worker_start_method.py, mended: the dataset holds its vocabulary.

Expect from `repro-audit check sample_models/worker_start_method_mended.py:build`: reproducible
(exit 0), under every `--require`.

The dataset is sent to every worker, however it starts, and its vocabulary with it.
"""

# expect broke = []
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

SENTENCES = [
    f"{who} {what} {where}"
    for who in ("she", "he", "it")
    for what in ("sat", "ran")
    for where in ("in", "on")
]


class Sentences(Dataset[tuple[Tensor, int]]):
    """Sentences as the numbers of their words; the label says whether somebody sat."""

    def __init__(self, vocabulary: dict[str, int]) -> None:
        self.vocabulary = vocabulary

    def __len__(self) -> int:
        return len(SENTENCES)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Numbers, with 0 for a word that is not known, and the label."""
        words = SENTENCES[index].split()
        return torch.tensor([self.vocabulary.get(word, 0) for word in words]), int("sat" in words)


def build(seed: int = 0) -> tuple[nn.Module, DataLoader[Any], nn.Module]:
    """The classifier and its loader, with a worker."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # whatever the machine has
    words = sorted({word for sentence in SENTENCES for word in sentence.split()})
    vocabulary = {word: number for number, word in enumerate(words, start=1)}
    loader = DataLoader(Sentences(vocabulary), batch_size=3, num_workers=1)
    model = nn.Sequential(nn.Embedding(len(vocabulary) + 1, 8), nn.Flatten(), nn.Linear(24, 2))
    return model, loader, nn.CrossEntropyLoss()
