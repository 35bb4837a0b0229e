"""A graph network that classifies the nodes of a citation graph by passing messages along its edges.

Expect from `repro-audit check sample_models/nondeterministic_op.py:build`: not reproducible (exit
1); `nondeterministic-op` broke, alone. The gather `nodes[self.source]` reads a node once for each
of its edges, so its backward pass adds many rows into one. Above 32,768 elements PyTorch splits
that among its threads, which add in whatever order they come: a real race, nothing is simulated.
It needs two threads, which the program fixes, and with luck some runs agree, so the audit releases
it several times and says how many differed. The losses agree to several digits; the first
gradients do not agree in their last bits.

The mend is `torch.use_deterministic_algorithms(True)`: see nondeterministic_op_mended.py. The
graph is synthetic.
"""

# expect broke = ["nondeterministic-op"]
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

NODES, EDGES, FEATURES, CLASSES = 200, 20_000, 16, 4


def citations() -> tuple[Tensor, Tensor, Tensor]:
    """Features of the nodes, their classes, and the edges, most of them within a class.

    Always the same, as if read from a file.
    """
    generator = torch.Generator().manual_seed(2017)
    classes = torch.arange(NODES) % CLASSES
    typical = torch.randn(CLASSES, FEATURES, generator=generator)
    features = typical[classes] + torch.randn(NODES, FEATURES, generator=generator)
    citing, cited = torch.randint(NODES, (2, EDGES), generator=generator)
    own_kind = (cited + (citing - cited) % CLASSES) % NODES
    cited = torch.where(torch.rand(EDGES, generator=generator) < 0.8, own_kind, cited)
    return features, classes, torch.stack((citing, cited))


class GraphNetwork(nn.Module):
    """Two rounds of messages, each the mean over a node's neighbours."""

    source: Tensor
    target: Tensor
    features: Tensor
    degree: Tensor

    def __init__(self, features: Tensor, edges: Tensor) -> None:
        super().__init__()
        source, target = edges
        degree = torch.bincount(target, minlength=len(features)).clamp(min=1)
        self.register_buffer("features", features)
        self.register_buffer("source", source)
        self.register_buffer("target", target)
        self.register_buffer("degree", degree[:, None])
        self.first = nn.Linear(FEATURES, FEATURES)
        self.second = nn.Linear(FEATURES, FEATURES)
        self.head = nn.Linear(FEATURES, CLASSES)

    def gathered(self, nodes: Tensor) -> Tensor:
        """For each node, the mean of what its neighbours send."""
        messages = nodes[self.source]
        return torch.zeros_like(nodes).index_add(0, self.target, messages) / self.degree

    def forward(self, asked: Tensor) -> Tensor:
        """Scores of the classes of the nodes that are asked for."""
        nodes = torch.relu(self.gathered(self.first(self.features)))
        nodes = torch.relu(self.gathered(self.second(nodes)))
        scores: Tensor = self.head(nodes[asked])
        return scores


def build(
    seed: int = 0,
) -> tuple[nn.Module, DataLoader[Any], nn.Module, torch.optim.Optimizer]:
    """The network with the whole graph in it, and the numbers of the nodes to learn from in random order."""
    torch.set_num_threads(2)  # the least that a race needs
    torch.manual_seed(seed)
    features, classes, edges = citations()
    loader = DataLoader(TensorDataset(torch.arange(NODES), classes), batch_size=20, shuffle=True)
    model = GraphNetwork(features, edges)
    return model, loader, nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters(), lr=0.01)
