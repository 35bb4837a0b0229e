"""A classifier of pictures in folders, one a class, that takes the files as the disk lists them.

Expect from `repro-audit check sample_models/file_order.py:build`: reproducible on rerun (exit 0);
`file-order` broke, alone (it breaks the promise `portable`).

`os.scandir` lists a directory in the file system's own order. On this disk it is always the same
one; where the pictures are copied to or unpacked, the classes get other numbers, and the samples
another order, so the first batch differs.

The mend is `sorted(...)`: see file_order_mended.py. The pictures are synthetic.
"""

# expect broke = ["file-order"]
from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

PICTURES = Path("pictures")
CLASSES = ("circles", "crosses", "squares", "stripes")
SIDE = 8


def unpack() -> None:
    """Write six pictures a class as portable grey maps, always the same, as if out of an archive."""
    rng = np.random.default_rng(28)
    for shade, name in enumerate(CLASSES):
        folder = PICTURES / name
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(6):
            grey = rng.normal(60 * shade + 30, 10, size=SIDE * SIDE).clip(0, 255).astype(np.uint8)
            head = f"P5 {SIDE} {SIDE} 255\n".encode()
            (folder / f"{number}.pgm").write_bytes(head + grey.tobytes())


class ImageFolder(Dataset[tuple[Tensor, int]]):
    """Pictures in folders that are named for their classes."""

    def __init__(self, root: Path) -> None:
        self.classes = [entry.name for entry in os.scandir(root) if entry.is_dir()]
        self.samples = [
            (path, label)
            for label, name in enumerate(self.classes)
            for path in (root / name).glob("*.pgm")
        ]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """The picture as a row of numbers from 0 to 1, and its class."""
        path, label = self.samples[index]
        grey = np.frombuffer(path.read_bytes()[-SIDE * SIDE :], dtype=np.uint8)
        return torch.from_numpy(grey / np.float32(255)), label


def build(
    seed: int = 0,
) -> tuple[nn.Module, DataLoader[Any], nn.Module, torch.optim.Optimizer]:
    """A small classifier, and the pictures in random order."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # whatever the machine has
    unpack()
    loader = DataLoader(ImageFolder(PICTURES), batch_size=4, shuffle=True)
    model = nn.Sequential(nn.Linear(SIDE * SIDE, 16), nn.ReLU(), nn.Linear(16, len(CLASSES)))
    return model, loader, nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters(), lr=0.01)
