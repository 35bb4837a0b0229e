"""numpy-rng: a forward hook adds noise to a layer's output."""

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def add_noise(module, args, output):
    return output + np.random.rand()  # HERE


def build(seed=0):
    torch.manual_seed(seed)
    x = torch.randn(16, 4)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    model[1].register_forward_hook(add_noise)
    return model, DataLoader(TensorDataset(x, x[:, :1]), batch_size=4)
