"""The classifier of `sample_models/clean_mlp.py` as a script with a loop of its own."""
# expect broke = []

import os

# Before PyTorch is imported: kernels that every x86 CPU has.
os.environ["ATEN_CPU_CAPABILITY"] = "default"
os.environ["ONEDNN_MAX_CPU_ISA"] = "SSE41"
os.environ["MKL_CBWR"] = "COMPATIBLE"

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
torch.set_num_threads(1)
arm = torch.arange(256) % 2
angle = torch.rand(256).sqrt() * 3 * torch.pi
turned = angle + torch.pi * arm
points = torch.stack((turned.cos() * angle, turned.sin() * angle), dim=1) / 10
dataset = TensorDataset(points + 0.02 * torch.randn(256, 2), arm)
loader = DataLoader(dataset, batch_size=16, shuffle=True)
model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

for epoch in range(100):
    for x, y in loader:
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()
