"""Loaders around a DataLoader, with long epochs: the audit leaves them early, which no training does."""

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler


class Rows(Dataset):
    def __init__(self, noise=0.0):
        self.noise = noise
        self.rng = torch.Generator().manual_seed(5)

    def __len__(self):
        return 400

    def __getitem__(self, index):
        x = torch.randn(6, generator=torch.Generator().manual_seed(1000 + index))
        return x + self.noise * torch.randn(6, generator=self.rng), x[:1]


class Drawn(Sampler):
    """With replacement, an index at a time: workers that read ahead draw ahead."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self):
        return 400

    def __iter__(self):
        for _ in range(400):
            yield int(torch.randint(400, (1,), generator=self.generator))


class Prefetcher:
    """One batch ahead, as those of timm and apex."""

    def __init__(self, loader):
        self.loader = loader

    def __iter__(self):
        ahead = None
        for batch in self.loader:
            if ahead is not None:
                yield ahead
            ahead = [each.clone() for each in batch]
        yield ahead


def parts(seed, **noise):
    torch.manual_seed(seed)
    return nn.Linear(6, 1), Prefetcher(DataLoader(Rows(**noise), batch_size=8, sampler=Drawn(seed))), nn.MSELoss()


def build(seed=0):
    """Whole epochs give the same with 0, 1 and 2 workers."""
    return parts(seed)


def noisy(seed=0):
    """The noise begins anew after a resume, and shows in the second epoch only."""
    return parts(seed, noise=1.0)
