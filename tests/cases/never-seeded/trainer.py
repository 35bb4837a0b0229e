"""A trainer object that seeds nothing, and a build() that hands it over: nobody else could seed."""
import random

import torch
from torch import nn


class Trainer:
    def __init__(self, model, data):
        self.model, self.data = model, data

    def train(self):
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        order = list(range(len(self.data)))
        random.shuffle(order)
        for index in order:
            loss = self.model(self.data[index]).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def build():
    return Trainer(nn.Linear(4, 1), torch.linspace(-1, 1, 80).reshape(20, 4))


def build_seeded():
    random.seed(0)
    torch.manual_seed(0)
    return build()


def build_parts():
    """Nothing is seeded, but whoever trains these parts can do it."""
    data = [row for row in torch.linspace(-1, 1, 80).reshape(20, 4)]
    random.shuffle(data)
    return nn.Linear(4, 1), data, lambda out, _: out.pow(2).mean()
