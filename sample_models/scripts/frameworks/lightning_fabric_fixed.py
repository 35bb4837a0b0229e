"""Lightning's Fabric, seeded with a number."""
# expect broke = []

import torch
from lightning.fabric import Fabric
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def main():
    seed = 7
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    fabric.seed_everything(seed)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model, optimizer = fabric.setup(model, optimizer)
    x = torch.linspace(-1, 1, 512).view(64, 8)
    data = TensorDataset(x, (x.sum(1) > 0).long())
    loader = fabric.setup_dataloaders(DataLoader(data, batch_size=8, shuffle=True))
    for _ in range(3):
        for inputs, labels in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), labels)
            fabric.backward(loss)
            optimizer.step()


if __name__ == "__main__":
    main()
