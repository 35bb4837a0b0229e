"""What a trial observes of the program: hooks on loaders, modules, backward and optimizers.

This package's own module imports no torch: a program may set environment variables before its own import of torch, and
the trial has the probe ready by then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro_audit.storage.facts import Key

if TYPE_CHECKING:
    from repro_audit.probe.detail.session import Detailed
    from repro_audit.probe.digest.capture import ValueWriter
    from repro_audit.probe.steps.counters import Counters
    from repro_audit.probe.steps.hooks import Hooks
    from repro_audit.storage.trace import Trace, TraceWriter


class StopTraining(BaseException):
    """Raised out of `optimizer.step()` once enough steps were seen; unwinds the program's own training loop."""


@dataclass(slots=True, kw_only=True)
class LoaderFacts:
    """What was seen of one loader, in the order in which loaders were first iterated."""

    torch: bool
    """A `torch.utils.data.DataLoader`; what is below comes from one where that is so."""
    num_workers: int = 0
    batch_size: int | None = None
    persistent: bool = False
    dataset: str = ""
    """Type name of the dataset, or of the loader itself."""
    samples_total: int | None = None
    batches_per_epoch: int | None = None
    epochs: int = 0
    training: bool = False
    """Was iterated while gradients were on."""
    batches: int = 0
    samples: int = 0
    """Distinct ones where the loader has indices; else those of the longest epoch."""


@dataclass(slots=True, kw_only=True)
class Stakes:
    """What shows that a training has something at stake; None where nothing of the kind was seen."""

    finite: list[bool | None] = field(default_factory=list)
    """By step: some loss that was backpropagated in it was a finite number."""
    gradients: bool | None = None
    """Some gradient of what an optimizer holds was not zero."""
    holds: bool | None = None
    """Some optimizer held a parameter of a module that ran."""
    rate: bool | None = None
    """Some optimizer had a learning rate other than zero."""


@dataclass(slots=True, kw_only=True)
class Probe:
    """Observes one training in this process, from `install` to `uninstall`, and leaves it as it is.

    Only the thread that installed the probe is observed, and no forked child: rows have an order in one thread only.
    """

    trace: TraceWriter
    values: ValueWriter | None = None
    capture: frozenset[Key] = frozenset()
    """Observations whose values go to `values`."""
    prefix: str = ""
    """Of each name: which process it is of, where several train together."""
    max_steps: int
    until_epoch: int | None = None
    """If given, training ends with this epoch of a loader that is read for training."""
    absent: bool = False
    """Observe nothing, only count the steps."""
    workers: Path | None = None
    """Where DataLoader workers report their generators, a JSON line each."""
    detailed: Detailed | None = None
    """Is told the step and the phase; whoever made it installs it, before the program's own import."""
    prepare: Callable[[], None] | None = None
    """Called first in a worker that begins as a new interpreter, so it must be fit to be pickled."""
    met: Callable[[Any], None] | None = None
    """Called with each module that runs by itself and is not known yet, before it is observed."""
    begun: Callable[[], None] = lambda: None
    """Called after the first step."""
    enough: Callable[[], None] = lambda: None
    """Called after the last step that is wanted, before `StopTraining` is raised, which the program may catch."""
    stopped: bool = False
    """The training was not left to come to its own end."""
    between: Callable[[str], None] | None = None
    """Called as the training goes on: before a loader is read anew (`begin`), before each batch (`next`), each run of
    a model (`model`), each `backward`, each `step` of an optimizer."""
    resumable: bool = False
    """Observe, as circumstances, with what an optimizer steps that a checkpoint should have."""

    steps: int = 0
    """Optimizer steps completed; those of a program without an optimizer, by the changes of its parameters."""
    losses: list[float] = field(default_factory=list)
    """The first loss that was backpropagated in each step, as it was before a gradient scaler had it."""
    stakes: Stakes = field(default_factory=Stakes)
    step_ends: list[float] = field(default_factory=list)
    """When each step ended, in seconds from no particular moment."""
    backwards: int = 0
    other_thread: str = ""
    """The name of a thread that is not observed and in which an optimizer stepped."""
    models: list[str] = field(default_factory=list)
    """The classes of the modules that ran by themselves."""
    loaders: list[LoaderFacts] = field(default_factory=list)
    _hooks: Hooks | Counters | None = None

    def install(self) -> None:
        """Hook torch, process-wide."""
        if self.absent:
            from repro_audit.probe.steps.counters import Counters

            self._hooks = Counters(self)
        else:
            from repro_audit.probe.steps.hooks import Hooks

            self._hooks = Hooks(self)
        self._hooks.install()

    def uninstall(self) -> None:
        """Leave torch as `install` found it."""
        if self._hooks is not None:
            self._hooks.uninstall()
        self._hooks = None

    @property
    def installed(self) -> bool:
        """Whether torch is hooked: it is not while a program that runs by itself has not imported it."""
        return self._hooks is not None

    @property
    def hooks(self) -> Hooks | Counters:
        """What is in place, for the driver."""
        if self._hooks is None:
            raise RuntimeError("the probe is not installed")
        return self._hooks

    def resume(self, earlier: Trace, *, steps: int, losses: Sequence[float], by_hand: bool) -> None:
        """Go on from a training of another process, whose rows replace all that was observed here so far."""
        self.steps, self.losses[:] = steps, losses
        self.hooks.resume(earlier, by_hand=by_hand)
