"""torch-rng: the weights are drawn in a fork of the generator, which is seeded; dropout draws from the ambient state."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 1)

    def forward(self, x):
        y = self.linear(x)
        return nn.functional.dropout(y, 0.5)  # HERE


def build(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        x = torch.randn(16, 4)
        model = Net()
    return model, DataLoader(TensorDataset(x, x[:, :1]), batch_size=4)
