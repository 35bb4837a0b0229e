import os
import subprocess
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def loader(number):
    x = torch.arange(64.0).view(-1, 1) / 64 + number
    return DataLoader(TensorDataset(x, 2 * x), batch_size=8)


def build(seed=0):
    torch.manual_seed(seed)
    number = int(subprocess.check_output(["date", "+%N"]))
    return nn.Linear(1, 1), loader(number / 1e9), nn.MSELoss()


def piped(seed=0):
    torch.manual_seed(seed)
    number = int(os.popen("date +%N").read())
    return nn.Linear(1, 1), loader(number / 1e9), nn.MSELoss()


def uptime(seed=0):
    torch.manual_seed(seed)
    seconds = Path("/proc/uptime").read_text().split()[0]
    return nn.Linear(1, 1), loader(float(seconds) / 1e9), nn.MSELoss()


def several(seed=0):
    torch.manual_seed(seed)
    number = int(subprocess.check_output(["date", "+%N"]))
    words = {"some", "words", "in", "any", "order"}
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.bias += sum(rank * len(word) for rank, word in enumerate(words)) / 100
    return model, loader(number / 1e9), nn.MSELoss()
