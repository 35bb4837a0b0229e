import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Warmed(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 1)
        self.seen = 0
        self.register_buffer("mean", torch.zeros(6))

    def get_extra_state(self):
        return {"seen": self.seen}

    def set_extra_state(self, state):
        self.seen = state["seen"]

    def forward(self, x):
        if self.training:
            self.seen += 1
            self.mean += (x.detach().mean(0) - self.mean) / self.seen
        return self.linear(x - self.mean) * min(1.0, self.seen / 6)


def build(seed=0):
    torch.manual_seed(seed)
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(8)) + 2
    model = Warmed()
    return model, DataLoader(TensorDataset(x, x[:, :1]), batch_size=8), nn.MSELoss(), torch.optim.SGD(model.parameters(), lr=0.1)
