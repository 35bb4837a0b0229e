"""What many projects have in a module of their own, imported first of all."""

import numpy as np
import torch

SEED = 42
np.random.seed(SEED)
torch.manual_seed(SEED)
