"""A GAN whose generator is fed with NumPy's noise, while only PyTorch and random are seeded."""
# expect broke = ["numpy-rng"], line = 54

import argparse
import random

import numpy as np
import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--n_epochs", type=int, default=20, help="number of epochs of training")
parser.add_argument("--batch_size", type=int, default=16, help="size of the batches")
parser.add_argument("--lr", type=float, default=0.0002, help="adam: learning rate")
parser.add_argument("--latent_dim", type=int, default=8, help="dimension of the latent space")
opt = parser.parse_args()

manual_seed = 999
random.seed(manual_seed)
torch.manual_seed(manual_seed)


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(
            nn.Linear(opt.latent_dim, 16), nn.BatchNorm1d(16), nn.LeakyReLU(0.2), nn.Linear(16, 2)
        )

    def forward(self, z):
        return self.model(z)


class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Linear(2, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))

    def forward(self, points):
        return torch.sigmoid(self.model(points))


adversarial_loss = nn.BCELoss()
generator, discriminator = Generator(), Discriminator()
circle = torch.rand(160) * 6.2832
points = torch.stack([circle.cos(), circle.sin()], dim=1)
dataloader = torch.utils.data.DataLoader(points, batch_size=opt.batch_size, shuffle=True)
optimizer_G = torch.optim.Adam(generator.parameters(), lr=opt.lr, betas=(0.5, 0.999))
optimizer_D = torch.optim.Adam(discriminator.parameters(), lr=opt.lr, betas=(0.5, 0.999))

for epoch in range(opt.n_epochs):
    for i, real in enumerate(dataloader):
        valid, fake = torch.ones(real.size(0), 1), torch.zeros(real.size(0), 1)
        z = torch.tensor(np.random.normal(0, 1, (real.size(0), opt.latent_dim)), dtype=torch.float)

        optimizer_G.zero_grad()
        generated = generator(z)
        g_loss = adversarial_loss(discriminator(generated), valid)
        g_loss.backward()
        optimizer_G.step()

        optimizer_D.zero_grad()
        real_loss = adversarial_loss(discriminator(real), valid)
        fake_loss = adversarial_loss(discriminator(generated.detach()), fake)
        d_loss = (real_loss + fake_loss) / 2
        d_loss.backward()
        optimizer_D.step()
    print(f"[Epoch {epoch}/{opt.n_epochs}] [D loss: {d_loss.item()}] [G loss: {g_loss.item()}]")
