import threading
from queue import Queue

import torch
from torch import nn


class Feed:
    def __init__(self, x, y, producers=2, size=6):
        self.x, self.y, self.producers, self.size = x, y, producers, size

    def __len__(self):
        return len(self.x) // self.size

    def produce(self, share, out):
        for first in share:
            rows = slice(first, first + self.size)
            wide = torch.stack([self.x[rows]] * (1 + first % 5)).mean(0)
            out.put((wide, self.y[rows]))

    def __iter__(self):
        starts = range(0, len(self) * self.size, self.size)
        outs = [Queue() for _ in range(self.producers)]
        for number, out in enumerate(outs):
            share = starts[number :: self.producers]
            threading.Thread(target=self.produce, args=(share, out), daemon=True).start()
        for turn in range(len(starts)):
            yield outs[turn % self.producers].get()


def build(seed=0):
    torch.manual_seed(seed)
    x = torch.randn(96, 10, generator=torch.Generator().manual_seed(2))
    model = nn.Sequential(nn.Linear(10, 14), nn.ReLU(), nn.Linear(14, 1))
    return model, Feed(x, x[:, :1] * x[:, 1:2]), nn.MSELoss(), torch.optim.SGD(model.parameters(), lr=0.1)
