"""An operation that races and has no deterministic form, as the CTC loss has none on a CUDA device.

On a CPU there is no such operation: this one is told of as PyTorch tells of them, and the kernel's random numbers stand
for its race.
"""

import ctypes
import warnings

import torch
from torch import nn
from torch._prims_common import alert_not_deterministic
from torch.utils.data import DataLoader, TensorDataset

warnings.simplefilter("ignore")
LIBC = ctypes.CDLL(None)


class Racing(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        return x * 2

    @staticmethod
    def backward(context, gradient):
        alert_not_deterministic("racing_backward")
        number = ctypes.c_uint8()
        LIBC.getrandom(ctypes.byref(number), 1, 0)
        return gradient * 2 + number.value * 1e-6


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, x):
        return Racing.apply(self.layer(x))


def build(seed):
    torch.set_num_threads(2)
    torch.manual_seed(seed)
    x = torch.randn(32, 4)
    return Model(), DataLoader(TensorDataset(x, x[:, :1]), batch_size=8)
