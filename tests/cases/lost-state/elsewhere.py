"""State that a training keeps in places of its own: a running scale in a closure, with a name that is long."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(seed=0):
    torch.manual_seed(seed)
    x = torch.randn(64, 6)
    model = nn.Linear(6, 1)
    exponential_moving_average_of_the_squared_gradient_norms_of_all_parameters = torch.ones(1)

    def train_step(model, batch):
        x, y = batch
        loss = (model(x) - y).square().mean()
        exponential_moving_average_of_the_squared_gradient_norms_of_all_parameters.mul_(0.9).add_(loss.detach())
        return loss / exponential_moving_average_of_the_squared_gradient_norms_of_all_parameters

    loader = DataLoader(TensorDataset(x, x[:, :1]), batch_size=8)
    return {"model": model, "loader": loader, "train_step": train_step}
