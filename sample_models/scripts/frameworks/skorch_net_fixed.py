"""A classifier of skorch's on data from scikit-learn with a random_state."""
# expect broke = []

import numpy as np
import torch
from sklearn.datasets import make_classification
from skorch import NeuralNetClassifier
from torch import nn


class Net(nn.Module):
    def __init__(self, hidden=16):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(20, hidden), nn.ReLU(), nn.Linear(hidden, 2))

    def forward(self, x):
        return self.layers(x)


def main():
    x, y = make_classification(96, 20, n_informative=10, random_state=0)
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        Net, criterion=nn.CrossEntropyLoss, max_epochs=3, lr=0.1, batch_size=16, verbose=0
    )
    net.fit(x.astype(np.float32), y.astype(np.int64))


if __name__ == "__main__":
    main()
