"""Images through torchvision's transforms, one of which draws from Python's generator, which nobody seeds."""
# expect broke = ["python-rng"], line = 18

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms


class Pictures(Dataset):
    def __init__(self, images, transform):
        self.images, self.transform = images, transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.transform(self.images[index]), index % 2


def main():
    torch.manual_seed(0)
    transform = transforms.Compose(
        [
            transforms.RandomHorizontalFlip(),
            transforms.RandomChoice([transforms.RandomCrop(8), transforms.CenterCrop(8)]),
            transforms.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    images = torch.rand(32, 3, 12, 12)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(3):
        for x, y in DataLoader(Pictures(images, transform), batch_size=8, shuffle=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()


if __name__ == "__main__":
    main()
