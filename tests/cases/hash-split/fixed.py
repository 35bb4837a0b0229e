"""Reads a folder in parallel, splits by hash of the name."""
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
import os
import zlib

import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset

ROOT = Path(__file__).parent / "imgs"


def read(path):
    x = torch.tensor([float(v) for v in path.read_text().split()])
    return x, int("dog" in path.name)


def load(mode):
    if mode == "listdir":
        return [read(ROOT / n) for n in sorted(os.listdir(ROOT))]
    if mode == "threads":
        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(read, p) for p in sorted(ROOT.iterdir())]
            return [f.result() for f in as_completed(futures)]
    paths = sorted(ROOT.iterdir())
    return [read(p) for p in paths if zlib.crc32(p.name.encode()) % 10 < 8]


def train(mode):
    torch.manual_seed(0)
    items = load(mode)
    ds = TensorDataset(torch.stack([x for x, _ in items]), torch.tensor([y for _, y in items]))
    loader = DataLoader(ds, batch_size=8, shuffle=True)
    model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in range(2):
        for x, y in loader:
            loss = nn.functional.cross_entropy(model(x), y)
            opt.zero_grad(); loss.backward(); opt.step()
    print(loss.item())


def main_listdir():
    train("listdir")


def main_threads():
    train("threads")


def main_hash():
    train("hash")
