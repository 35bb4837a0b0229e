"""hash-seed: workers are seeded by the hash of a name."""

import random

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Samples(Dataset):
    def __init__(self):
        self.x = torch.randn(16, 4)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index] * random.random(), self.x[index, :1]


def seed_worker(worker):
    number = hash(f"worker {worker}")  # HERE
    random.seed(number)


def build(seed=0):
    torch.manual_seed(seed)
    return nn.Linear(4, 1), DataLoader(Samples(), batch_size=4, num_workers=1, worker_init_fn=seed_worker)
