"""hash-seed: a vocabulary made before any worker starts decides what the workers fetch."""

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

TEXTS = ["one two three", "two three four", "five six one", "six four two"] * 4


class Vocabulary:
    def __init__(self, texts):
        words = {word for text in texts for word in text.split()}
        self.index = {word: number for number, word in enumerate(words)}  # HERE


class Texts(Dataset):
    def __init__(self, vocabulary):
        self.vocabulary = vocabulary

    def __len__(self):
        return len(TEXTS)

    def __getitem__(self, index):
        numbers = [self.vocabulary.index[word] for word in TEXTS[index].split()]
        x = torch.tensor(numbers, dtype=torch.float32)
        return x, x[:1]


def build(seed=0):
    torch.manual_seed(seed)
    return nn.Linear(3, 1), DataLoader(Texts(Vocabulary(TEXTS)), batch_size=4, num_workers=2)
