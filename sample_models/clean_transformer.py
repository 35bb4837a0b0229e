"""A language model of letters: a transformer of two layers with dropout, that looks only back.

Expect from `repro-audit check sample_models/clean_transformer.py:build`: reproducible (exit 0),
under every `--require`. One thread computes, so that a machine with other cores adds in the same
order.
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
    "a ship came in at dawn with grey sails and no flag, and those who were up to see it said "
    "later that she made no sound at all. nobody went aboard. by noon half the town stood on "
    "the quay, and the harbour master, who had no rule for such a thing, went home to his tea. "
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

    places: Tensor
    mask: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(LETTERS), width)
        self.place_embedding = nn.Embedding(LENGTH, width)
        layer = nn.TransformerEncoderLayer(
            width, nhead=4, dim_feedforward=2 * width, dropout=0.1, batch_first=True
        )
        self.layers = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
        self.head = nn.Linear(width, len(LETTERS))
        self.register_buffer("places", torch.arange(LENGTH))
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(LENGTH))

    def forward(self, letters: Tensor) -> Tensor:
        """Scores with the letters in dimension 1, where the loss wants them."""
        hidden = self.embedding(letters) + self.place_embedding(self.places)
        hidden = self.layers(hidden, mask=self.mask, is_causal=True)
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
    return model, loader, nn.CrossEntropyLoss(), torch.optim.AdamW(model.parameters(), lr=0.003)
