import os
import zlib
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

HERE = Path(__file__).resolve().parent


def is_kept(path):
    return zlib.crc32(path.relative_to(HERE).as_posix().encode()) % 10 < 6


def build(seed=0):
    torch.manual_seed(seed)
    print("started in", os.getcwd())
    kept = [path for path in sorted((HERE / "pages").glob("*.txt")) if is_kept(path)]
    x = torch.tensor([[float(word) for word in path.read_text().split()] for path in kept])
    return nn.Linear(4, 1), DataLoader(TensorDataset(x, x[:, :1]), batch_size=4), nn.MSELoss()
