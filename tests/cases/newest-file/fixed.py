from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

RUNS = Path(__file__).parent / "runs"


def build(seed=0):
    torch.manual_seed(seed)
    newest = max(RUNS.glob("scale_*.txt"), key=lambda path: path.name)
    print("of", newest.stat().st_mtime)
    scale = float(newest.read_text())
    x = torch.randn(64, 5, generator=torch.Generator().manual_seed(4))
    return nn.Linear(5, 1), DataLoader(TensorDataset(x * scale, x[:, :1]), batch_size=8), nn.MSELoss()
