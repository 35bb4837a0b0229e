import os
import random

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

class Stream(Dataset):
    def __init__(self):
        source = np.random.default_rng(61)
        self.x = source.standard_normal((96, 6)).astype(np.float32)
        self.y = np.tanh(self.x.sum(1, keepdims=True))

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index], self.y[index]


class BufferShuffle(Sampler):
    """Hands out a random sample of the next few, like a shuffle buffer."""

    def __init__(self, data, buffer=16, seed=0):
        self.data, self.buffer, self.seed = data, buffer, seed

    def __len__(self):
        return len(self.data)

    def __iter__(self):
        rng = random.Random(f"shuffle {self.seed}")
        held = []
        for index in range(len(self.data)):
            held.append(index)
            if len(held) == self.buffer:
                yield held.pop(rng.randrange(len(held)))
        rng.shuffle(held)
        yield from held


def build(seed=0):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    print("process", os.getpid())
    data = Stream()
    loader = DataLoader(data, batch_size=12, sampler=BufferShuffle(data, seed=seed))
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 1))
    return model, loader, nn.MSELoss(), torch.optim.SGD(model.parameters(), lr=0.1)
