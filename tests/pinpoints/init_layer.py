"""torch-rng: the first layer draws its weights before anything is seeded."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)  # HERE
        self.second = nn.Linear(4, 1)

    def forward(self, x):
        return self.second(self.first(x))


def build(seed=0):
    model = Net()
    torch.manual_seed(seed)
    x = torch.randn(16, 4)
    return model, DataLoader(TensorDataset(x, x[:, :1]), batch_size=4)
