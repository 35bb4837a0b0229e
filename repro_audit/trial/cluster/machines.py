"""The nodes of a cluster by their kinds, and those that an audit leaves alone."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from repro_audit.trial.cluster.nodes import in_words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from repro_audit.trial.cluster.connection import Cluster
    from repro_audit.trial.cluster.nodes import Kind, Node


class Machines:
    """Which kind of machine each node is.

    Args:
        cluster: whose.
        environment: of the audit, which a node's own is added to.
    """

    def __init__(self, cluster: Cluster, environment: Mapping[str, str]) -> None:
        self._cluster = cluster
        self._environment = environment
        self._kinds: dict[Kind, str] = {}
        """The kinds that there were in the beginning, in words."""
        self._known: dict[str, str] = {}
        """By the id of each node that tells it: its kind, in words."""
        self._left: dict[str, str] = {}
        """By the id of each node that is left alone: why."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Why nodes are left alone."""
        return tuple(self._left.values())

    def of(self, node: Node) -> str:
        """A node's kind, in words."""
        return self._known[node.id]

    def leave(self, node: Node, why: str) -> None:
        """Leave a node alone from now on."""
        self._left[node.id] = f"no trials ran on {node.name}: {why}"

    def part(self, node: Node) -> None:
        """Have a node be a kind of its own, which computes otherwise than all that is known of it tells."""
        self._known[node.id] += f", {node.name}"

    def usable(self) -> list[Node]:
        """The nodes that are there and can run trials; new ones too, if they are of a kind that there was."""
        found = self._cluster.nodes()
        new = [node for node in found if node.id not in self._known.keys() | self._left.keys()]
        kinds, failed = self._cluster.kinds(new, self._environment)
        if not self._kinds:
            self._kinds = {kinds[node]: words for node, words in in_words(kinds).items()}
        self._known |= {
            node: self._kinds[kind] for node, kind in kinds.items() if kind in self._kinds
        }
        for node in new:
            if node.id in failed:
                self.leave(node, failed[node.id])
        return [node for node in found if node.id in self._known.keys() - self._left.keys()]

    def best_first(self) -> list[Node]:
        """The nodes that can run trials: those with GPUs, which the program may use; then the most that are alike."""
        nodes = self.usable()
        alike = Counter(map(self.of, nodes))
        return sorted(nodes, key=lambda node: (-min(node.gpus, 1), -alike[self.of(node)]))
