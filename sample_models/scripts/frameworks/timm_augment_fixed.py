"""Images through timm's RandAugment, with every generator seeded that it draws from."""
# expect broke = []

import random

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Pictures(Dataset):
    def __init__(self, images, transform):
        self.images, self.transform = images, transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.transform(self.images[index]), index % 2


def main():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    transform = create_transform(16, is_training=True, auto_augment="rand-m9-mstd0.5-inc1")
    images = [Image.new("RGB", (24, 24), (8 * i, 255 - 8 * i, 99)) for i in range(32)]
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(784, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(3):
        for x, y in DataLoader(Pictures(images, transform), batch_size=8, shuffle=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()


if __name__ == "__main__":
    main()
