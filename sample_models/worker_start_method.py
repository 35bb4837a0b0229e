"""A classifier of sentences whose vocabulary is a global that `build` fills.

Expect from `repro-audit check sample_models/worker_start_method.py:build`: `worker-start-method`
broke. It breaks the promise of the scope `settings`, so the verdict is reproducible (exit 0)
unless `--require settings` is given (exit 1).

A forked worker finds the vocabulary filled. One that is spawned, or forked from a server, imports
this module anew, where it is empty: every word is unknown there.

The mend that the report prints, to keep what samples depend on in the dataset, is in
worker_start_method_mended.py.
"""

# expect broke = ["worker-start-method"]
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
VOCABULARY: dict[str, int] = {}


class Sentences(Dataset[tuple[Tensor, int]]):
    """Sentences as the numbers of their words; the label says whether somebody sat."""

    def __len__(self) -> int:
        return len(SENTENCES)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Numbers, with 0 for a word that is not known, and the label."""
        words = SENTENCES[index].split()
        return torch.tensor([VOCABULARY.get(word, 0) for word in words]), int("sat" in words)


def build(seed: int = 0) -> tuple[nn.Module, DataLoader[Any], nn.Module]:
    """The classifier and its loader, with a worker."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # whatever the machine has
    for word in sorted({word for sentence in SENTENCES for word in sentence.split()}):
        VOCABULARY.setdefault(word, len(VOCABULARY) + 1)
    loader = DataLoader(Sentences(), batch_size=3, num_workers=1)
    model = nn.Sequential(nn.Embedding(len(VOCABULARY) + 1, 8), nn.Flatten(), nn.Linear(24, 2))
    return model, loader, nn.CrossEntropyLoss()
