"""Other transforms of `torch.func`, alone and inside of modules."""

import torch
from torch import nn
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, stack_module_state, vjp, vmap
from torch.utils.data import DataLoader, TensorDataset


def loader(seed):
    torch.manual_seed(seed)
    x = torch.randn(32, 6)
    return DataLoader(TensorDataset(x, x[:, :1]), batch_size=8, shuffle=True)


class Penalised(nn.Module):
    """A model whose forward differentiates modules of its own, as physics-informed and normalizing-flow models do."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        slope = vmap(jacrev(lambda row: self.net(row)))(x)
        bend = vmap(hessian(lambda row: self.net(row).sum()))(x)
        _, along = jvp(self.net, (x,), (torch.ones_like(x),))
        out, pull = vjp(self.net, x)
        (back,) = pull(torch.ones_like(out))
        return out + 0.1 * (slope.sum((1, 2)) + bend.sum((1, 2)) + along[:, 0] + back.sum(1))[:, None] + self.drop(out)


def inside(seed=0):
    batches = loader(seed)
    return Penalised(), batches, nn.MSELoss()


def outside(seed=0):
    """The module runs only inside of transforms, in a step of the program's own."""
    batches = loader(seed)
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def loss(parameters, x, y):
        return (functional_call(model, parameters, (x,)) - y).square().mean()

    def train_step(model, batch):
        parameters = {name: each.detach() for name, each in model.named_parameters()}
        slopes = jacfwd(loss)(parameters, *batch)
        noise = vmap(lambda each: each + 0.01 * torch.randn(6), randomness="different")(batch[0])
        more = grad(loss)(parameters, noise, batch[1])
        for name, each in model.named_parameters():
            each.grad = slopes[name] + more[name]
        optimizer.step()

    return {"model": model, "loader": batches, "optimizer": optimizer, "train_step": train_step}


def ensemble(seed=0):
    """Several models at once, trained through autograd outside of the transform."""
    batches = loader(seed)
    members = [nn.Linear(6, 1) for _ in range(3)]
    parameters, _ = stack_module_state(members)
    optimizer = torch.optim.SGD(parameters.values(), lr=0.1)
    base = nn.Linear(6, 1, device="meta")

    def train():
        for x, y in batches:
            optimizer.zero_grad()
            out = vmap(lambda own: functional_call(base, own, (x,)))(parameters)
            (out - y).square().mean().backward()
            optimizer.step()

    return train


def unseeded(seed=0):
    """As `inside`, with noise from a generator that nobody seeds."""
    model, batches, loss = inside(seed)
    noise = torch.Generator()
    noise.seed()

    def noisy(out, y):
        return loss(out + vmap(lambda row: row * 2)(torch.randn(out.shape, generator=noise)), y)

    return model, batches, noisy
