"""A forecast of demand in which recent days weigh more, counted back from today.

Expect from `repro-audit check sample_models/clock.py:build`: not reproducible (exit 1);
`clock` broke, alone.

Each day's weight halves with every month that has passed since. The date of the run decides how
many those are, so the same data weighs otherwise tomorrow, and the first batch differs; two runs on
one day agree, and so do the reruns that one usually tries. The duration that is logged does no
harm.

The mend is a date that is fixed, or passed in: see clock_mended.py.
"""

# expect broke = ["clock"]
from __future__ import annotations

import logging
import time
from datetime import date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

LOGGER = logging.getLogger(__name__)
FIRST_DAY = date(2025, 1, 1)
HALF_LIFE_DAYS = 30.0


def demand() -> Tensor:
    """What was sold on each of 180 days, always the same, as if read from a file."""
    day = np.arange(180)
    noise = np.random.default_rng(7).normal(size=len(day))
    return torch.from_numpy(10 + 3 * np.sin(2 * np.pi * day / 7) + noise).float()


def weights(count: int) -> Tensor:
    """How much each day counts: half as much for every month that it lies back."""
    days = [FIRST_DAY + timedelta(days=number) for number in range(count)]
    today = datetime.now(timezone.utc).date()
    age = torch.tensor([(today - day).days for day in days])
    return 0.5 ** (age / HALF_LIFE_DAYS)


class WeightedLoss(nn.Module):
    """Squared error, times the weight of the day."""

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """`target` holds what was sold, and the weight."""
        sold, weight = target.unbind(1)
        return (weight * (predicted.squeeze(1) - sold).square()).mean()


def build(
    seed: int = 0,
) -> tuple[nn.Module, DataLoader[Any], nn.Module, torch.optim.Optimizer]:
    """A small model that predicts a day from the week before it."""
    started = time.perf_counter()
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # whatever the machine has
    sold = demand()
    weeks = sold.unfold(0, 7, 1)[:-1]
    target = torch.stack((sold[7:], weights(len(sold))[7:]), dim=1)
    loader = DataLoader(TensorDataset(weeks, target), batch_size=16, shuffle=True)
    model = nn.Sequential(nn.Linear(7, 16), nn.ReLU(), nn.Linear(16, 1))
    LOGGER.info("ready after %.3f s", time.perf_counter() - started)
    return model, loader, WeightedLoss(), torch.optim.Adam(model.parameters(), lr=0.01)
