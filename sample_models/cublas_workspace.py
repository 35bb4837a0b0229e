"""A segmenter that takes an environment variable of cuBLAS for the wish to be deterministic.

Expect from `repro-audit check sample_models/cublas_workspace.py:build`: `cublas-workspace` broke,
alone but for `cpu-isa`. That is a promise of the scope `settings`, so the verdict is reproducible
(exit 0) unless `--require settings` is given (exit 1).

On CUDA the gradient of bilinear upsampling has no deterministic algorithm, so the program uses the
nearest pixel where `CUBLAS_WORKSPACE_CONFIG` is set, which deterministic runs had to set for long.
A cluster's job script sets it, a laptop does not: the same command builds two different networks.

The mend is to decide in the program: see cublas_workspace_mended.py. The images are synthetic.
"""

# expect broke = ["cublas-workspace"]
from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


def discs() -> tuple[Tensor, Tensor]:
    """48 noisy images of a disc, and the discs; always the same, as if read from a file."""
    generator = torch.Generator().manual_seed(1987)
    row, column = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    centre = torch.randint(2, 6, (48, 2, 1, 1), generator=generator)
    inside = (row - centre[:, 0]) ** 2 + (column - centre[:, 1]) ** 2 < 6
    masks = inside.float().unsqueeze(1)
    return masks + 0.3 * torch.randn(masks.shape, generator=generator), masks


def build(
    seed: int = 0,
) -> tuple[nn.Module, DataLoader[Any], nn.Module, torch.optim.Optimizer]:
    """A network that shrinks the image and enlarges it again, on one thread, and the images."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    deterministic = "CUBLAS_WORKSPACE_CONFIG" in os.environ
    enlarge = nn.Upsample(scale_factor=2, mode="nearest" if deterministic else "bilinear")
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(), enlarge, nn.Conv2d(4, 1, 3, padding=1)
    )
    loader = DataLoader(TensorDataset(*discs()), batch_size=6, shuffle=True)
    return model, loader, nn.BCEWithLogitsLoss(), torch.optim.SGD(model.parameters(), lr=0.1)
