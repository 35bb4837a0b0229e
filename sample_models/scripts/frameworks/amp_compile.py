"""A compiled model under autocast and a gradient scaler, with dropout masks of NumPy's that nothing seeds."""
# expect broke = ["numpy-rng"], line = 20

import numpy as np
import torch
from torch import nn


def main():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 1))
    compiled = torch.compile(model, backend="aot_eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126)
    x = torch.randn(64, 8)
    y = x.sum(1, keepdim=True)
    for _ in range(4):
        for batch in torch.arange(64).split(8):
            optimizer.zero_grad()
            kept = torch.from_numpy(np.random.rand(8, 8) > 0.1)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = nn.functional.mse_loss(compiled(x[batch] * kept), y[batch])
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()


if __name__ == "__main__":
    main()
