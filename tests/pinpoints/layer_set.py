"""object-address: layers are initialised in the order of a set of them."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(seed=0):
    torch.manual_seed(seed)
    layers = [nn.Linear(4, 4) for _ in range(6)]
    for layer in set(layers):  # HERE
        nn.init.normal_(layer.weight)
    x = torch.randn(16, 4)
    return nn.Sequential(*layers), DataLoader(TensorDataset(x, x), batch_size=4)
