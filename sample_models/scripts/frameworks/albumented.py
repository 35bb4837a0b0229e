"""Images augmented by albumentations, whose pipeline has a generator of its own, seeded by the system."""
# expect broke = ["os-entropy"], line = 29

import random

import albumentations as A
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Pictures(Dataset):
    def __init__(self, images, augment):
        self.images, self.augment = images, augment

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        image = self.augment(image=self.images[index])["image"]
        return torch.from_numpy(image).float().permute(2, 0, 1) / 255, index % 2


def main():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    augment = A.Compose([A.HorizontalFlip(p=0.5), A.RandomBrightnessContrast(p=1.0)])
    images = np.random.randint(0, 255, (32, 12, 12, 3), dtype=np.uint8)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(3):
        for x, y in DataLoader(Pictures(images, augment), batch_size=8, shuffle=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()


if __name__ == "__main__":
    main()
