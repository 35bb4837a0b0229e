"""A small graph network whose nodes get their rows from a walk that remembers them in a set.

Expect from `repro-audit check sample_models/object_address.py:build`: `object-address` broke, the
verdict is not reproducible (exit 1).

A node has no `__hash__` of its own, so it hashes by its address, and the set of visited nodes is
iterated in another order in each process. The rows of the features follow that order, and with
them which node gets which initial weights.

The mend that the report prints, a dict in place of the set, keeps the order of the walk: see
object_address_mended.py. The graph is a ring with chords.
"""

# expect broke = ["object-address"]
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

SIZE = 24


class Node:
    """A node of the graph, with a measurement to predict."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.neighbours: list[Node] = []


class GraphNet(nn.Module):
    """Learns a vector for each node, and mixes those of neighbours."""

    def __init__(self, adjacency: Tensor) -> None:
        super().__init__()
        self.adjacency = nn.Buffer(adjacency / adjacency.sum(1, keepdim=True))
        self.vectors = nn.Parameter(torch.randn(len(adjacency), 8))
        self.head = nn.Linear(8, 1)

    def forward(self, rows: Tensor) -> Tensor:
        """Predict the measurement of the nodes in these rows."""
        return self.head(torch.tanh(self.adjacency @ self.vectors))[rows]


def graph() -> Node:
    """A ring with chords; any of its nodes."""
    nodes = [Node(number) for number in range(SIZE)]
    for number, node in enumerate(nodes):
        node.neighbours = [nodes[(number + step) % SIZE] for step in (1, -1, 5)]
    return nodes[0]


def reachable(start: Node) -> list[Node]:
    """All nodes that a walk from `start` meets."""
    found, waiting = {start}, [start]
    while waiting:
        new = [node for node in waiting.pop().neighbours if node not in found]
        found.update(new)
        waiting += new
    return list(found)


def build(seed: int = 0) -> tuple[nn.Module, list[Any]]:
    """The network, and batches of rows with the measurements of their nodes."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # whatever the machine has
    nodes = reachable(graph())
    rows = {node: row for row, node in enumerate(nodes)}
    adjacency = torch.eye(SIZE)
    for node, row in rows.items():
        adjacency[row, [rows[each] for each in node.neighbours]] = 1.0
    measured = torch.tensor([[node.number / SIZE] for node in nodes])
    batches = [(batch, measured[batch]) for batch in torch.arange(SIZE).split(6)]
    return GraphNet(adjacency), batches
