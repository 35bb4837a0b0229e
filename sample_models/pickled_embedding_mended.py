"""The classifier of questions of pickled_embedding.py, mended: the Embedding is built in every run.

Expect from `repro-audit check sample_models/pickled_embedding_mended.py:build`: reproducible
(exit 0), also under `--require settings`. Only its weights are kept, in
`.cache/pickled_embedding_mended.pt`, and loaded into the Embedding that was just built. Building
it draws the same random numbers whether the file is there or not, so all that comes after them is
the same.
"""

# expect broke = []
from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

CACHE = Path(".cache", "pickled_embedding_mended.pt")

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
    """A new Embedding with the weights of earlier runs; or with its own, kept for later runs."""
    embedding = nn.Embedding(count, 16)
    if CACHE.exists():
        embedding.load_state_dict(torch.load(CACHE, weights_only=True))
    else:
        CACHE.parent.mkdir(exist_ok=True)
        torch.save(embedding.state_dict(), CACHE)
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
