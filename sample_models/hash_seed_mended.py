"""The sentiment classifier of hash_seed.py, mended: the set is sorted before it numbers the words.

Expect from `repro-audit check sample_models/hash_seed_mended.py:build`: reproducible (exit 0),
also under `--require settings`.
"""

# expect broke = []
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

REVIEWS = (
    ("a warm and funny film with a splendid cast", 1),
    ("dull plot and wooden acting from start to end", 0),
    ("the best story of the year told with wit", 1),
    ("i left early for the jokes were stale", 0),
    ("moving music and a brave honest ending", 1),
    ("far too long and never once surprising", 0),
    ("splendid acting carries a simple story", 1),
    ("stale plot wooden jokes and a weak ending", 0),
    ("funny honest and never too long", 1),
    ("a weak cast in a dull and noisy film", 0),
    ("told with warm wit from start to end", 1),
    ("the music was noisy and the story weak", 0),
)


def word_counts() -> tuple[Tensor, Tensor]:
    """How often each review has each word of the vocabulary, and whether it is favourable."""
    vocabulary = sorted({word for review, _ in REVIEWS for word in review.split()})
    column = {word: number for number, word in enumerate(vocabulary)}
    counts = torch.zeros(len(REVIEWS), len(vocabulary))
    for row, (review, _) in zip(counts, REVIEWS, strict=True):
        for word in review.split():
            row[column[word]] += 1
    return counts, torch.tensor([favourable for _, favourable in REVIEWS])


def build(
    seed: int = 0,
) -> tuple[nn.Module, DataLoader[Any], nn.Module, torch.optim.Optimizer]:
    """A bag-of-words classifier, and the reviews in random order."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # whatever the machine has
    counts, favourable = word_counts()
    loader = DataLoader(TensorDataset(counts, favourable), batch_size=3, shuffle=True)
    model = nn.Sequential(nn.Linear(counts.shape[1], 16), nn.ReLU(), nn.Linear(16, 2))
    return model, loader, nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters(), lr=0.01)
