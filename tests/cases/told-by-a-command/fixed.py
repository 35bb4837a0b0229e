import subprocess
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(seed=0):
    torch.manual_seed(seed)
    print("started at", subprocess.check_output(["date", "+%T.%N"], text=True))
    print("up for", Path("/proc/uptime").read_text())
    number = int(subprocess.check_output(["echo", "7"]))
    x = torch.arange(64.0).view(-1, 1) / 64 + number
    return nn.Linear(1, 1), DataLoader(TensorDataset(x, 2 * x), batch_size=8), nn.MSELoss()
