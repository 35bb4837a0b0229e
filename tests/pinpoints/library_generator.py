"""os-entropy: a sampler of torch's makes its generator from a number of the operating system's."""

import os

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler


def build(seed=0):
    torch.manual_seed(seed)
    x = torch.randn(16, 4)
    data = TensorDataset(x, x[:, :1])
    sampler = DistributedSampler(
        data,
        num_replicas=1,
        rank=0,
        seed=int.from_bytes(os.urandom(2), "big"),  # HERE
    )
    return nn.Linear(4, 1), DataLoader(data, batch_size=4, sampler=sampler)
