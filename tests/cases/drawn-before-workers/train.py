"""Data that are computed before the workers that hand them out are there: kernels of another CPU compute others."""

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset


class Rows(Dataset):
    def __init__(self, count):
        self.x = torch.randn(count, 64)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index].numpy(), float(self.x[index, 0])


def train(loader):
    model = nn.Linear(64, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        for x, y in loader:
            loss = (model(x) - y.float().view(-1, 1)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def main():
    torch.manual_seed(0)
    x = torch.randn(64, 64)
    train(DataLoader(TensorDataset(x, x[:, 0]), batch_size=8, shuffle=True, num_workers=2))


def owned():
    torch.manual_seed(0)
    train(DataLoader(Rows(64), batch_size=8, shuffle=True, num_workers=2))


def made(count):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(count, 64, generator=generator)


def build(seed=0):
    torch.manual_seed(seed)
    x = made(64)
    data = TensorDataset(x, x[:, :1])
    return nn.Linear(64, 1), DataLoader(data, batch_size=8, num_workers=2), nn.MSELoss()
