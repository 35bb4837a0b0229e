"""num-workers: the same in workers, whose generators start elsewhere."""

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Noise:
    def __call__(self, x):
        scale = 0.1
        return x + np.float32(np.random.rand()) * scale  # HERE


class Samples(Dataset):
    def __init__(self, transform):
        self.x = torch.randn(16, 4)
        self.transform = transform

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        x = self.x[index]
        return self.transform(x), x[:1]


def build(seed=0):
    torch.manual_seed(seed)
    np.random.seed(seed)
    return nn.Linear(4, 1), DataLoader(Samples(Noise()), batch_size=4, num_workers=1)
