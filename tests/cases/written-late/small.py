"""Writes its checkpoint when an epoch is over, after more steps than are tried, and goes on from it where there is one."""
import os

import torch
from torch import nn

CKPT = "last.pt"


def save(state, path):
    torch.save(state, path)


def main():
    torch.manual_seed(0)
    model, x = nn.Linear(4, 1), torch.randn(12, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    if os.path.exists(CKPT):
        model.load_state_dict(torch.load(CKPT))
    for epoch in range(3):
        for row in x:
            optimizer.zero_grad()
            model(row).pow(2).sum().backward()
            optimizer.step()
        save(model.state_dict(), CKPT)


def fixed():
    """What it saves, it never reads."""
    torch.manual_seed(0)
    model, x = nn.Linear(4, 1), torch.randn(12, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in range(3):
        for row in x:
            optimizer.zero_grad()
            model(row).pow(2).sum().backward()
            optimizer.step()
        torch.save(model.state_dict(), f"epoch-{epoch}.pt")


def short():
    """It ends before the trial does: there is nothing further to see."""
    torch.manual_seed(0)
    model, x = nn.Linear(4, 1), torch.randn(5, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for row in x:
        optimizer.zero_grad()
        model(row).pow(2).sum().backward()
        optimizer.step()
    if os.path.exists(CKPT):
        print("there already")
    elif len(x) > 100:
        torch.save(model.state_dict(), CKPT)
