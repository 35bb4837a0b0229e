import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Cell(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gate = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, x):
        return x + torch.sigmoid(self.gate(x)) * self.value(x)


def jitter(parameters):
    for parameter in dict.fromkeys(parameters):
        with torch.no_grad():
            parameter.add_(0.01 * torch.randn_like(parameter))


def build(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(*[Cell(12) for _ in range(20)], nn.Linear(12, 1))
    jitter(model.parameters())
    x = torch.randn(64, 12, generator=torch.Generator().manual_seed(5))
    return model, DataLoader(TensorDataset(x, x[:, :1]), batch_size=8), nn.MSELoss(), torch.optim.Adam(model.parameters())
