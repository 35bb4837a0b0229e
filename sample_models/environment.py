"""A model of taxi fares that knows the hour of a trip from the machine's local time.

Expect from `repro-audit check sample_models/environment.py:build`: reproducible on rerun
(exit 0); `environment` broke, alone, by the time zone (it breaks the promise `portable`).

`time.localtime` counts hours in the zone of the machine. On a laptop at home and in a container,
which knows no zone but UTC, the same trip was at other hours, and the first batch differs.

The mend is to name the zone: see environment_mended.py. The trips are synthetic.
"""

# expect broke = ["environment"]
from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


def trips() -> tuple[list[float], Tensor]:
    """When each of 120 trips began, in seconds since 1970, and its fare; always the same."""
    rng = np.random.default_rng(1899)
    began = 1_735_700_000 + np.sort(rng.uniform(0, 30 * 86_400, size=120))
    fares = 8 + 3 * np.cos(2 * np.pi * began / 86_400) + rng.exponential(2.0, size=120)
    return began.tolist(), torch.from_numpy(fares).float().unsqueeze(1)


def features(began: float) -> list[float]:
    """The time of day on a circle, and whether it was a weekend."""
    when = time.localtime(began)
    angle = 2 * math.pi * (when.tm_hour + when.tm_min / 60) / 24
    return [math.sin(angle), math.cos(angle), float(when.tm_wday >= 5)]


def build(
    seed: int = 0,
) -> tuple[nn.Module, DataLoader[Any], nn.Module, torch.optim.Optimizer]:
    """A small regression, and the trips in random order."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # whatever the machine has
    began, fares = trips()
    data = TensorDataset(torch.tensor([features(moment) for moment in began]), fares)
    loader = DataLoader(data, batch_size=8, shuffle=True)
    model = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1))
    return model, loader, nn.MSELoss(), torch.optim.Adam(model.parameters(), lr=0.01)
