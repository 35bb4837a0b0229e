"""A language model of letters: an LSTM of two layers with dropout between them.

Expect from `repro-audit check sample_models/clean_lstm.py:build`: reproducible (exit 0), under
every `--require`. `lstm-dropout` is not exercised without a CUDA device: the report says that a
second run in the process agreed, but on CPU kernels; cuDNN keeps a dropout state of its own,
which reseeding does not reset. One thread computes, so that a machine with other cores adds in
the same order.
"""

# expect broke = [], capped = true
from __future__ import annotations

import os
from typing import Any

# Before PyTorch is imported: kernels that every x86 CPU has, for `--require portable`.
os.environ["ATEN_CPU_CAPABILITY"] = "default"
os.environ["ONEDNN_MAX_CPU_ISA"] = "SSE41"
os.environ["MKL_CBWR"] = "COMPATIBLE"

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

TEXT = (
    "the sun did not shine on the wet and windy hill where the shepherd kept his flock, and the "
    "wind that came down from the north in the night had left a thin white line of frost along "
    "the wall. he counted them twice, as he did every morning, and twice he was one short. "
)
LETTERS = sorted(set(TEXT))
LENGTH = 16


def passages() -> tuple[Tensor, Tensor]:
    """Passages of the text as numbers of letters, and the letter that follows each letter."""
    numbers = torch.tensor([LETTERS.index(letter) for letter in TEXT])
    windows = numbers.unfold(0, LENGTH + 1, 2)
    return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()


class LanguageModel(nn.Module):
    """Letters in, scores of the next letter out, at each place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(LETTERS), width)
        self.lstm = nn.LSTM(width, width, num_layers=2, dropout=0.2, batch_first=True)
        self.head = nn.Linear(width, len(LETTERS))

    def forward(self, letters: Tensor) -> Tensor:
        """Scores with the letters in dimension 1, where the loss wants them."""
        hidden, _ = self.lstm(self.embedding(letters))
        scores: Tensor = self.head(hidden)
        return scores.transpose(1, 2)


def build(
    seed: int = 0,
) -> tuple[nn.Module, DataLoader[Any], nn.Module, torch.optim.Optimizer]:
    """The model, and the passages in random order."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    loader = DataLoader(TensorDataset(*passages()), batch_size=8, shuffle=True)
    model = LanguageModel(width=24)
    return model, loader, nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters(), lr=0.01)
