"""process-reuse: a module reseeds NumPy when it is imported, which a second run in the process does not do again."""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).parent))


def build(seed=0):
    torch.manual_seed(seed)
    np.random.seed(seed)
    import reseeds  # HERE

    x = torch.from_numpy(np.random.rand(16, 4)).float()
    return nn.Linear(4, 1), DataLoader(TensorDataset(x, x[:, :1]), batch_size=4)
