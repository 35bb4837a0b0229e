"""A denoiser that pads its images otherwise where cuDNN is to be deterministic.

Expect from `repro-audit check sample_models/cudnn_deterministic.py:build`: `cudnn-deterministic`
broke, alone but for `cpu-isa`. That is a promise of the scope `settings`, so the verdict is
reproducible (exit 0) unless `--require settings` is given (exit 1).

On CUDA the gradient of reflection padding has no deterministic algorithm, so the program pads with
zeros where `torch.backends.cudnn.deterministic` is set. Whether it is depends on who calls it: a
notebook's first cell, a launcher, a colleague's seeding function.

The mend is to decide in the program: see cudnn_deterministic_mended.py. The images are synthetic.
"""

# expect broke = ["cudnn-deterministic"]
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


def stripes() -> tuple[Tensor, Tensor]:
    """48 noisy images of stripes, and the stripes; always the same, as if read from a file."""
    generator = torch.Generator().manual_seed(1965)
    phase = torch.randint(4, (48, 1, 1, 1), generator=generator)
    clean = ((torch.arange(8) + phase) // 2 % 2).float().expand(48, 1, 8, 8)
    return clean + 0.3 * torch.randn(clean.shape, generator=generator), clean


def build(
    seed: int = 0,
) -> tuple[nn.Module, DataLoader[Any], nn.Module, torch.optim.Optimizer]:
    """Two convolutions, on one thread, and the images in random order."""
    torch.set_num_threads(1)  # whatever the machine has
    torch.manual_seed(seed)
    edges = "zeros" if torch.backends.cudnn.deterministic else "reflect"
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, padding_mode=edges), nn.ReLU(), nn.Conv2d(4, 1, 1)
    )
    loader = DataLoader(TensorDataset(*stripes()), batch_size=6, shuffle=True)
    return model, loader, nn.MSELoss(), torch.optim.SGD(model.parameters(), lr=0.1)
