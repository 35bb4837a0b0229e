"""hash-seed: a dataset numbers words in the order of a set."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

TEXT = "one two three four five six seven eight nine ten eleven twelve thirteen".split()


def vocabulary(text):
    words = set(text)
    return {word: number for number, word in enumerate(words)}  # HERE


def build(seed=0):
    torch.manual_seed(seed)
    numbers = vocabulary(TEXT)
    x = torch.tensor([[float(numbers[word])] for word in TEXT])
    return nn.Linear(1, 1), DataLoader(TensorDataset(x, x), batch_size=4)
