"""The segmenter of cublas_workspace.py, mended: the network does not depend on the environment.

Expect from `repro-audit check sample_models/cublas_workspace_mended.py:build`: reproducible (exit
0), also under `--require settings`. The nearest pixel has a deterministic gradient everywhere.
"""

# expect broke = []
from __future__ import annotations

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
    enlarge = nn.Upsample(scale_factor=2, mode="nearest")
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(), enlarge, nn.Conv2d(4, 1, 3, padding=1)
    )
    loader = DataLoader(TensorDataset(*discs()), batch_size=6, shuffle=True)
    return model, loader, nn.BCEWithLogitsLoss(), torch.optim.SGD(model.parameters(), lr=0.1)
