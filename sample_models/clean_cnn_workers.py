"""A convolutional network on augmented images, with two workers, that holds for any number of them.

Expect from `repro-audit check sample_models/clean_cnn_workers.py:build`: reproducible (exit 0),
under every `--require`. What it does for that: the sampler passes the epoch along with each
index, and each image is flipped and dimmed by random numbers that follow from both; workers are
seeded as PyTorch's notes on reproducibility say; and one thread computes, so that a machine with
other cores adds in the same order. The images are synthetic.
"""

# expect broke = [], capped = true
from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Any

# Before PyTorch is imported: kernels that every x86 CPU has, for `--require portable`.
os.environ["ATEN_CPU_CAPABILITY"] = "default"
os.environ["ONEDNN_MAX_CPU_ISA"] = "SSE41"
os.environ["MKL_CBWR"] = "COMPATIBLE"

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

if TYPE_CHECKING:
    from collections.abc import Iterator

COUNT = 96


class EpochSampler(Sampler[tuple[int, int]]):
    """All indices in random order, each with the number of the epoch, so that workers know it too."""

    def __init__(self, seed: int, count: int) -> None:
        self.seed = seed
        self.count = count
        self.epoch = 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        order = np.random.default_rng((self.seed, epoch)).permutation(self.count)
        return ((epoch, int(index)) for index in order)

    def state_dict(self) -> dict[str, int]:
        """The epoch that comes next, for checkpoints."""
        return {"epoch": self.epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on with the epoch that came next."""
        self.epoch = state["epoch"]


class Shapes(Dataset[tuple[Tensor, Tensor]]):
    """Images of 12 x 12 pixels with a bar that lies, stands or leans; flipped and dimmed at random."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        generator = torch.Generator().manual_seed(1989)
        self.labels = torch.arange(COUNT) % 3
        self.images = 0.1 * torch.rand(COUNT, 1, 12, 12, generator=generator)
        shapes = torch.zeros(3, 12, 12)
        shapes[0, 5:7] = 1
        shapes[1, :, 5:7] = 1
        shapes[2] = torch.eye(12)
        self.images[:, 0] += shapes[self.labels]

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The image that `(epoch, index)` stands for, as that epoch has it, and its label."""
        epoch, index = key
        generator = np.random.default_rng((self.seed, epoch, index))
        image = self.images[index]
        if generator.random() < 0.5:
            image = image.flip(-1)
        return image * generator.uniform(0.7, 1.3), self.labels[index]


def seed_worker(_worker_id: int) -> None:
    """Seed `random` and NumPy in a worker from PyTorch's seed there, as PyTorch's notes say."""
    worker_seed = torch.initial_seed() % 2**32
    np.random.seed(worker_seed)
    random.seed(worker_seed)


def build(
    seed: int = 0,
) -> tuple[nn.Module, DataLoader[Any], nn.Module, torch.optim.Optimizer]:
    """A network of two convolutions, and the images in random order."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    loader = DataLoader(
        Shapes(seed),
        batch_size=8,
        sampler=EpochSampler(seed, COUNT),
        num_workers=2,
        worker_init_fn=seed_worker,
        generator=torch.Generator().manual_seed(seed),
    )
    model = nn.Sequential(
        nn.Conv2d(1, 8, kernel_size=3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, kernel_size=3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 3 * 3, 3),
    )
    return model, loader, nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters(), lr=0.01)
