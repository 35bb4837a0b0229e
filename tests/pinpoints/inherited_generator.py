"""os-entropy: a transform's own generator, made in the main process and used in workers."""

import random

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Flip:
    def __init__(self, share):
        self.share = share
        self.rng = random.Random()  # HERE

    def __call__(self, x):
        return x.flip(0) if self.rng.random() < self.share else x


class Samples(Dataset):
    def __init__(self, transform):
        self.x = torch.arange(64.0).view(16, 4)
        self.transform = transform

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        x = self.transform(self.x[index])
        return x, x[:1]


def build(seed=0):
    torch.manual_seed(seed)
    return nn.Linear(4, 1), DataLoader(Samples(Flip(0.5)), batch_size=4, num_workers=1)
