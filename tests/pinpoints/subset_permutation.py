"""os-entropy: the indices of a subset are drawn where no name of the program's holds them."""

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset


def build(seed=0):
    torch.manual_seed(seed)
    x = torch.randn(64, 4)
    rng = np.random.default_rng()  # HERE
    some = Subset(TensorDataset(x, x[:, :1]), rng.permutation(64)[:48].tolist())
    return nn.Linear(4, 1), DataLoader(some, batch_size=4)
