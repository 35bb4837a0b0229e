"""A Ray cluster, as far as an audit has to do with it: nodes, lanes on them, calls, and what becomes of those."""

from __future__ import annotations

import importlib
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro_audit.errors import UsageError
from repro_audit.trial.cluster import nodes
from repro_audit.trial.cluster.lane import Lane, Plan, adopt, clear
from repro_audit.trial.cluster.nodes import Kind, Node

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ADDRESS = "ray"
"""`--on ray`: the cluster that Ray finds, or a new one on this machine; else `ray://host:port`."""
START_SECONDS = 300.0
"""How long a node may take to start a process of ours."""
POLL_SECONDS = 0.5
PACKAGE = Path(__file__).resolve().parents[2]


class LostError(Exception):
    """A node, or the process of ours there, is gone; what it ran is to be run elsewhere."""


class Cluster:
    """A connection to Ray.

    Args:
        address: as `--on` has it.
        root: the tree that is sent to the nodes.

    Raises:
        UsageError: Ray is not installed, not there, or takes no files as large as these.
    """

    def __init__(self, address: str, root: Path) -> None:
        try:
            self._ray = importlib.import_module("ray")
        except ImportError as error:
            raise UsageError(
                f"Ray can not be imported: {error}",
                where=f"--on {address}",
                next_step="pip install 'repro-audit[ray]', here and on the nodes",
            ) from None
        self._waiter = ThreadPoolExecutor(1)
        heeded = signal.getsignal(signal.SIGTERM)
        try:
            self._ray.init(
                address=None if address == ADDRESS else address,
                runtime_env={"working_dir": str(root), "py_modules": [str(PACKAGE)]},
                log_to_driver=False,
                logging_level="error",
            )
        except Exception as error:
            raise _not_there(error, address, root) from error
        if signal.getsignal(signal.SIGTERM) is not heeded:
            # Ray would end a cluster that it has started here before we have cleared up in it.
            signal.signal(signal.SIGTERM, heeded)

    def nodes(self) -> list[Node]:
        """Those that are alive and may run something."""
        return [
            Node(
                id=node["NodeID"],
                name=node["NodeManagerAddress"],
                cpus=int(node["Resources"].get("CPU", 0)),
                gpus=int(node["Resources"].get("GPU", 0)),
            )
            for node in self._ray.nodes()
            if node["Alive"] and node["Resources"].get("CPU", 0) >= 1
        ]

    def kinds(
        self, found: Sequence[Node], environment: Mapping[str, str]
    ) -> tuple[dict[str, Kind], dict[str, str]]:
        """The kind of each node, by its id, and why others can run nothing."""
        look = self._ray.remote(_kind)
        asked = [self._at(look, node).remote(dict(environment)) for node in found]
        self._wait(asked, len(asked), START_SECONDS)
        answers = {node.id: self._answer(call) for node, call in zip(found, asked, strict=True)}
        kinds = {node: said for node, said in answers.items() if not isinstance(said, str)}
        return kinds, {node: said for node, said in answers.items() if isinstance(said, str)}

    def _answer(self, call: Any) -> Kind | str:
        """A node's kind, or why it does not tell: a package may be missing there, or anything else."""
        try:
            return tuple(self.result(call, seconds=0))
        except Exception as error:
            return _in_one_line(error)

    def clear(self, found: Sequence[Node], audit: str, *, seconds: float) -> None:
        """Delete what lanes of an audit left on these nodes, as far as they answer."""
        calls = [
            self._at(self._ray.remote(clear), node).remote(audit, seconds=seconds) for node in found
        ]
        self._wait(calls, len(calls), 2 * seconds)

    def open(self, node: Node, plan: Plan, *, cpus: int, gpus: int) -> Any:
        """A lane on a node, which has so much of it to itself."""
        made = self._ray.remote(Lane).options(
            num_cpus=cpus, num_gpus=gpus, scheduling_strategy=self._on(node)
        )
        return made.remote(plan)

    def call(self, lane: Any, method: str, *arguments: Any, **named: Any) -> Any:
        """Begin a call of a lane's method."""
        return getattr(lane, method).remote(*arguments, **named)

    def ready(self, calls: Sequence[Any], *, seconds: float) -> list[Any]:
        """The calls that have ended, after waiting for one."""
        return self._wait(calls, 1, seconds)

    def result(self, call: Any, *, seconds: float | None = START_SECONDS) -> Any:
        """What a call returned.

        Raises:
            LostError: it did not end, since its node or process is gone, or does not answer.
        """
        errors = self._ray.exceptions
        if not self._wait([call], 1, seconds):
            raise LostError("it has no room, or does not answer")
        try:
            return self._ray.get(call)
        except errors.RayTaskError as error:
            raise error.cause from None
        except errors.RayError as error:
            raise LostError(_in_one_line(error)) from error

    def end(self, lane: Any) -> None:
        """End a lane at once."""
        self._ray.kill(lane)

    def close(self) -> None:
        """Leave the cluster; what we had there ends."""
        self._waiter.shutdown()
        self._ray.shutdown()

    def _wait(self, calls: Sequence[Any], many: int, seconds: float | None) -> list[Any]:
        """The calls that have ended once so many have, or the time is over; a signal ends it at once."""
        until = None if seconds is None else time.monotonic() + seconds
        ended: list[Any] = []
        while calls and len(ended) < many:
            left = POLL_SECONDS if until is None else min(POLL_SECONDS, until - time.monotonic())
            # Ray's own code drops what a handler of signals raises while it waits: it waits in another thread.
            waiting = self._waiter.submit(
                self._ray.wait, list(calls), num_returns=many, timeout=max(0.0, left)
            )
            ended, _ = waiting.result()
            if left <= 0:
                break
        return ended

    def _at(self, function: Any, node: Node) -> Any:
        return function.options(num_cpus=0, scheduling_strategy=self._on(node))

    def _on(self, node: Node) -> Any:
        strategies = importlib.import_module("ray.util.scheduling_strategies")
        return strategies.NodeAffinitySchedulingStrategy(node.id, soft=False)


def _kind(environment: dict[str, str]) -> Kind:
    """Of the node that this process is on."""
    adopt(environment)
    return nodes.kind()


def _in_one_line(error: Exception) -> str:
    """What an error says first; where it hands on the traceback of another one, what that says in the end."""
    said = str(error).strip().splitlines() or [type(error).__name__]
    return said[-1] if any(line.startswith("Traceback") for line in said) else said[0]


def _not_there(error: Exception, address: str, root: Path) -> UsageError:
    """What to say where Ray can not be reached, or does not take what it is sent."""
    said = str(error).strip()
    where = f"--on {address}"
    too_large = [line for line in said.splitlines() if "exceeds the maximum size" in line]
    if too_large:
        return UsageError(
            "The working directory is too large to be sent to the nodes.",
            where=f"{where}, {root}",
            why=too_large[0].partition(". ")[0],
            next_step="name what trials do not need in .rayignore (Ray leaves out what .gitignore names too), and "
            "have large data on a file system that all nodes share",
        )
    return UsageError(
        "There is no Ray cluster that takes this audit.",
        where=where,
        why=f"{type(error).__name__}: {said}",
        next_step="is it running (ray status), reachable from here, and of the same versions of Ray and Python?",
    )
