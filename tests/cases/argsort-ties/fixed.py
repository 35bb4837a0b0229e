import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(seed=0):
    torch.manual_seed(seed)
    source = np.random.default_rng(9)
    x = source.standard_normal((200, 6)).astype(np.float32)
    length = source.integers(1, 4, 200)
    longest = np.argsort(length, kind="stable")[::-1][:120]
    data = TensorDataset(torch.from_numpy(x[longest]), torch.from_numpy(x[longest, :1]))
    return nn.Linear(6, 1), DataLoader(data, batch_size=8), nn.MSELoss()
