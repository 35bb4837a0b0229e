"""The autoencoder of process_identity.py, mended.

Expect from `repro-audit check sample_models/process_identity_mended.py:build`: reproducible (exit 0);
nothing broke but `cpu-isa` on most machines.

The noise follows from the seed and the number of the run, which the environment says. The id of the
process is only printed.
"""

# expect broke = []
from __future__ import annotations

import os
import sys

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

SENSORS = 12


def build(
    seed: int = 0,
) -> tuple[nn.Module, DataLoader[tuple[torch.Tensor, ...]], nn.Module]:
    """An autoencoder of noisy readings."""
    torch.manual_seed(seed)
    run = int(os.environ.get("RUN", "0"))
    sys.stdout.write(f"process {os.getpid()} is run {run}\n")
    rng = np.random.default_rng([seed, run])
    clean = np.sin(np.outer(np.arange(96) / 8, np.arange(1, SENSORS + 1)))
    noisy = clean + 0.1 * rng.standard_normal(clean.shape)
    data = TensorDataset(
        torch.tensor(noisy, dtype=torch.float32), torch.tensor(clean, dtype=torch.float32)
    )
    model = nn.Sequential(nn.Linear(SENSORS, 4), nn.Tanh(), nn.Linear(4, SENSORS))
    return model, DataLoader(data, batch_size=12), nn.MSELoss()
