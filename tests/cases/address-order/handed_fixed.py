"""The modules in the order in which the model has them."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def layers(model):
    found = {}
    for module in model.modules():
        if isinstance(module, nn.Linear):
            found[module] = True
    return list(found)


def start(layer):
    std = layer.in_features**-0.5
    nn.init.normal_(layer.weight, std=std)


def build(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(*[nn.Linear(12, 12) for _ in range(20)], nn.Linear(12, 1))
    for layer in layers(model):
        start(layer)
    x = torch.randn(64, 12, generator=torch.Generator().manual_seed(5))
    return model, DataLoader(TensorDataset(x, x[:, :1]), batch_size=8), nn.MSELoss()
