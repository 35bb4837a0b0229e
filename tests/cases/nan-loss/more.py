"""Trainings with something at stake, though at first sight nothing moves; and some in which nothing does."""
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def parts(model, lr=0.1, **options):
    torch.manual_seed(0)
    x = torch.randn(64, 8)
    loader = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=8)
    return model, loader, nn.MSELoss(), torch.optim.SGD(model.parameters(), lr=lr, **options)


def build(seed=0):
    """The twin of train.py: a loss that is a number."""
    torch.manual_seed(seed)
    return parts(nn.Linear(8, 1))


def zero_loss(seed=0):
    """Every gradient is zero, and weight decay alone moves the parameters."""
    torch.manual_seed(seed)
    model, loader, _, optimizer = parts(nn.Linear(8, 1), weight_decay=0.1)
    return model, loader, lambda out, y: (out * 0).sum(), optimizer


def late_nan(seed=0):
    """NaN at the last step alone."""
    torch.manual_seed(seed)
    model, loader, _, optimizer = parts(nn.Linear(8, 1), lr=0.01)
    calls = iter([1.0] * 7 + [float("nan")])
    return model, loader, lambda out, y: (out - y).pow(2).mean() * next(calls), optimizer


def frozen_backbone(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
    model[0].requires_grad_(False)
    return parts(model)


def warmup(seed=0):
    """The learning rate is 0 in all but the last steps."""
    torch.manual_seed(seed)
    model, loader, loss, optimizer = parts(nn.Linear(8, 1))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, step - 5))
    return {"model": model, "loader": loader, "loss_fn": loss, "optimizer": optimizer, "scheduler": scheduler}


def cold(seed=0):
    """The learning rate is 0 in all of the steps that are tried."""
    torch.manual_seed(seed)
    model, loader, loss, optimizer = parts(nn.Linear(8, 1))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, step - 50))
    return {"model": model, "loader": loader, "loss_fn": loss, "optimizer": optimizer, "scheduler": scheduler}


def style():
    """What is optimised is an image, and the model stays as it is."""
    torch.manual_seed(0)
    model, image = nn.Conv2d(3, 4, 3), torch.randn(1, 3, 8, 8, requires_grad=True)
    optimizer = torch.optim.LBFGS([image], max_iter=2)

    def closure():
        optimizer.zero_grad()
        loss = model(image).pow(2).mean()
        loss.backward()
        return loss

    for _ in range(10):
        optimizer.step(closure)


def scaled():
    """A gradient scaler that overflows first, and skips."""
    torch.manual_seed(0)
    model, x = nn.Linear(8, 1), torch.randn(16, 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    for _ in range(60):
        scaler.scale(model(x).pow(2).mean() + 4).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=False)


def sparse():
    torch.manual_seed(0)
    model = nn.Embedding(32, 4, sparse=True)
    optimizer = torch.optim.SparseAdam(model.parameters())
    for step in range(10):
        optimizer.zero_grad()
        model(torch.tensor([step, step + 1])).pow(2).sum().backward()
        optimizer.step()


def by_hand():
    torch.manual_seed(0)
    weight = nn.Linear(8, 1)
    for _ in range(10):
        for parameter in weight.parameters():
            parameter.grad = None
        weight(torch.ones(2, 8)).pow(2).sum().backward()
        with torch.no_grad():
            for parameter in weight.parameters():
                parameter -= 0.01 * parameter.grad


def exploded():
    """Too high a learning rate: after a step or two all is NaN."""
    torch.manual_seed(0)
    model = nn.Linear(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e30)
    for _ in range(10):
        optimizer.zero_grad()
        model(torch.ones(4, 8)).pow(2).mean().backward()
        optimizer.step()


def detached():
    """The loss never reaches what the optimizer holds."""
    torch.manual_seed(0)
    encoder, head = nn.Linear(8, 4), nn.Linear(4, 1)
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
    for _ in range(10):
        optimizer.zero_grad()
        head(encoder(torch.ones(4, 8)).detach()).pow(2).mean().backward()
        optimizer.step()
