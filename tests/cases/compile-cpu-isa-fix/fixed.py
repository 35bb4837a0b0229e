"""A small network trained with torch.compile, on one thread and with deterministic algorithms."""

import torch
from torch import nn


def main(iters=8):
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(1337)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    compiled = torch.compile(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(iters):
        x = torch.randn(16, 8)
        optimizer.zero_grad()
        loss = (compiled(x) - x.sum(1, keepdim=True)).square().mean()
        loss.backward()
        optimizer.step()
        print(loss.item())


if __name__ == "__main__":
    main()
