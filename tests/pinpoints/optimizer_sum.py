"""thread-count: an optimizer divides by the norm of a long gradient, summed by several threads."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Normed(torch.optim.Optimizer):
    def __init__(self, params):
        super().__init__(params, {"lr": 0.01})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for param in group["params"]:
                size = (param.grad * param.grad).sum()  # HERE aten::sum optimizer
                param.sub_(param.grad / size.sqrt())


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(400_000))

    def forward(self, x):
        return self.weight * x


def loss_function(output, target):
    return ((output - target) ** 2).mean(1)[0]


def build(seed=0):
    torch.manual_seed(seed)
    x = torch.randn(4, 400_000)
    model = Net()
    loader = DataLoader(TensorDataset(x, x * 2), batch_size=1)
    return model, loader, loss_function, Normed(model.parameters())
