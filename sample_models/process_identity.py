"""An autoencoder whose training noise is seeded with the id of the process.

Expect from `repro-audit check sample_models/process_identity.py:build`: not reproducible (exit 1);
`process-identity` broke, alone.

Several runs are started at once, and each shall see other noise. The id of the process makes them
differ, as wanted, and nobody can have one of them again.

The mend numbers the runs: see process_identity_mended.py.
"""

# expect broke = ["process-identity"]
from __future__ import annotations

import os

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
    rng = np.random.default_rng(os.getpid())
    clean = np.sin(np.outer(np.arange(96) / 8, np.arange(1, SENSORS + 1)))
    noisy = clean + 0.1 * rng.standard_normal(clean.shape)
    data = TensorDataset(
        torch.tensor(noisy, dtype=torch.float32), torch.tensor(clean, dtype=torch.float32)
    )
    model = nn.Sequential(nn.Linear(SENSORS, 4), nn.Tanh(), nn.Linear(4, SENSORS))
    return model, DataLoader(data, batch_size=12), nn.MSELoss()
