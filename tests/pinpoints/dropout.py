"""torch-rng: dropout draws from a generator that is seeded for the weights, and then from the ambient state."""

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
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    x = torch.randn(16, 4)
    model = Net()
    torch.set_rng_state(state)
    return model, DataLoader(TensorDataset(x, x[:, :1]), batch_size=4)
