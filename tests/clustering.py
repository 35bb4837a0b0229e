"""A cluster without Ray: each lane is a process of its own, on a node that is a directory with a copy of the tree."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from repro_audit.trial.cluster import lane as lanes
from repro_audit.trial.cluster import nodes
from repro_audit.trial.cluster.connection import LostError
from repro_audit.trial.cluster.nodes import Kind, Node

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from repro_audit.trial.cluster.lane import Plan

CPUS = 2


@dataclass(eq=False, slots=True)
class Process:
    """Where one lane is."""

    node: str
    pool: futures.ProcessPoolExecutor
    ran: int = 0
    """Trials that were asked of it."""

    def ask(self, function: Any, *arguments: Any, **named: Any) -> Future[Any]:
        """Have it call a function; lost if it is gone."""
        try:
            return self.pool.submit(function, *arguments, **named)
        except BrokenProcessPool as error:
            lost: Future[Any] = futures.Future()
            lost.set_exception(error)
            return lost


@dataclass(slots=True)
class ProcessCluster:
    """Stands in for `connection.Cluster`."""

    address: str
    root: Path
    names: tuple[str, ...] = ("one", "two")
    processes: list[Process] = field(default_factory=list)
    closed: bool = False

    def nodes(self) -> list[Node]:
        """As `Cluster.nodes`; so do the others."""
        return [Node(id=name, name=name, cpus=CPUS, gpus=0) for name in self.names]

    def kinds(
        self, found: Sequence[Node], _environment: Mapping[str, str]
    ) -> tuple[dict[str, Kind], dict[str, str]]:
        return {node.id: nodes.kind() for node in found}, {}

    def open(self, node: Node, plan: Plan, *, cpus: int, gpus: int) -> Process:
        assert (cpus, gpus) == (CPUS, 0)
        process = self._process(node)
        self.processes.append(process)
        process.ask(_make, plan)
        return process

    def call(self, lane: Process, method: str, *arguments: Any, **named: Any) -> Future[Any]:
        lane.ran += len(arguments[0]) if method == "run" else 0
        return lane.ask(_call, method, arguments, named)

    def ready(self, calls: Sequence[Future[Any]], *, seconds: float) -> list[Future[Any]]:
        ended, _ = futures.wait(calls, timeout=seconds, return_when=futures.FIRST_COMPLETED)
        return list(ended)

    def result(self, call: Future[Any], *, seconds: float | None = None) -> Any:
        try:
            return call.result(seconds)
        except (BrokenProcessPool, futures.TimeoutError) as error:
            raise LostError(str(error)) from error

    def end(self, lane: Process) -> None:
        for process in list((lane.pool._processes or {}).values()):
            process.kill()
        lane.pool.shutdown()

    def clear(self, found: Sequence[Node], audit: str, *, seconds: float) -> None:
        for node in found:
            process = self._process(node)
            process.ask(lanes.clear, audit, seconds=seconds).result()
            process.pool.shutdown()

    def close(self) -> None:
        self.closed = True

    def _process(self, node: Node) -> Process:
        """A process on a node, which gets the tree with its first one."""
        place = self.root.parent / f"node-{node.name}"
        if not place.exists():
            shutil.copytree(self.root, place)
        pool = futures.ProcessPoolExecutor(
            1,
            multiprocessing.get_context("spawn"),
            initializer=os.chdir,
            initargs=(place,),
        )
        return Process(node.name, pool)


_made: list[lanes.Lane] = []
"""The lane of this process."""


def _make(plan: Plan) -> None:
    _made.append(lanes.Lane(plan))


def _call(method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    (lane,) = _made
    return getattr(lane, method)(*arguments, **named)
