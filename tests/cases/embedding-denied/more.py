"""Embeddings inside training procedures: deep in a model, in an object with train(), and one that comes out of a pickle."""
import pickle
from pathlib import Path

import torch
from torch import nn

WORDS = Path("words.pkl")


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleDict({"words": nn.EmbeddingBag(16, 8), "head": nn.Linear(8, 16)})

    def forward(self, tokens):
        return self.parts["head"](self.parts["words"](tokens[:, None]))


class Trainer:
    def train(self):
        torch.manual_seed(0)
        fit(Tagger())


def fit(model):
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(10):
        tokens = torch.randint(16, (8,))
        loss = nn.functional.cross_entropy(model(tokens), tokens)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def build():
    return Trainer()


def pickled():
    """Building it draws, and loading it does not: a second run goes on with other draws."""
    torch.manual_seed(0)
    if WORDS.exists():
        words = pickle.loads(WORDS.read_bytes())
    else:
        words = nn.Embedding(16, 8)
        WORDS.write_bytes(pickle.dumps(words))
    fit(nn.Sequential(words, nn.Linear(8, 16)))


def none():
    torch.manual_seed(0)
    model, x = nn.Linear(4, 1), torch.randn(12, 4)
    optimizer = torch.optim.Adam(model.parameters())
    for row in x:
        optimizer.zero_grad()
        model(row).pow(2).sum().backward()
        optimizer.step()
