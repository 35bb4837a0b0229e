"""A classifier of questions whose `nn.Embedding` is pickled by the first run and reused by every later one.

Expect from `repro-audit check sample_models/pickled_embedding.py:build`: not reproducible (exit
1); `pickled-embedding` broke, alone. The first run makes the Embedding, which draws random
numbers, and pickles it to `.cache/pickled_embedding.pkl`. A later run unpickles it, which draws
none: the table is the same, but PyTorch's generator stands elsewhere from there on, and so the
head of the model and the order of the batches are others. Nor does the seed reach the table any
more. The audit shows it by removal: without the pickle, the second run equals the first.

The mend is to build the Embedding in every run and to keep only its weights: see
pickled_embedding_mended.py.
"""

# expect broke = ["pickled-embedding"]
from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

CACHE = Path(".cache", "pickled_embedding.pkl")
PRETRAINED: nn.Embedding | None = pickle.loads(CACHE.read_bytes()) if CACHE.exists() else None  # noqa: S301 - our own

QUESTIONS = (
    ("where is the old harbour", "place"),
    ("who built the stone bridge", "person"),
    ("when did the war end", "time"),
    ("where was the king born", "place"),
    ("who wrote the last letter", "person"),
    ("when was the bridge built", "time"),
    ("where did the river rise", "place"),
    ("who was the first king", "person"),
    ("when did the letter arrive", "time"),
    ("where does the road end", "place"),
    ("who led the long war", "person"),
    ("when does the harbour close", "time"),
)
ANSWERS = ("person", "place", "time")


def encoded() -> tuple[Tensor, Tensor, int]:
    """Each question as five word numbers, the kind of answer it asks for, and how many words there are."""
    vocabulary = sorted({word for question, _ in QUESTIONS for word in question.split()})
    number = {word: index for index, word in enumerate(vocabulary)}
    words = torch.tensor([[number[word] for word in text.split()] for text, _ in QUESTIONS])
    kinds = torch.tensor([ANSWERS.index(answer) for _, answer in QUESTIONS])
    return words, kinds, len(vocabulary)


def word_vectors(count: int) -> nn.Embedding:
    """The Embedding of earlier runs; or a new one, pickled for later runs."""
    if PRETRAINED is not None:
        return copy.deepcopy(PRETRAINED)
    embedding = nn.Embedding(count, 16)
    CACHE.parent.mkdir(exist_ok=True)
    CACHE.write_bytes(pickle.dumps(embedding))
    return embedding


class Classifier(nn.Module):
    """The mean of a question's word vectors, and a layer on top."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.embedding = embedding
        self.head = nn.Linear(embedding.embedding_dim, len(ANSWERS))

    def forward(self, words: Tensor) -> Tensor:
        """Scores of the kinds of answer."""
        scores: Tensor = self.head(self.embedding(words).mean(dim=1))
        return scores


def build(
    seed: int = 0,
) -> tuple[nn.Module, DataLoader[Any], nn.Module, torch.optim.Optimizer]:
    """A classifier, and the questions in random order."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # whatever the machine has
    words, kinds, count = encoded()
    model = Classifier(word_vectors(count))
    loader = DataLoader(TensorDataset(words, kinds), batch_size=3, shuffle=True)
    return model, loader, nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters(), lr=0.01)
