"""Training what `build()` returned, a few steps long.

No torch is imported here before the target's module has been: a program may set environment variables first.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from repro_audit.context.checkpoint import Checkpoint
from repro_audit.errors import NeverTrainedError, TargetError
from repro_audit.probe import LoaderFacts, Probe, StopTraining
from repro_audit.trial.driver.loading import Build
from repro_audit.trial.driver.notes import Notes
from repro_audit.trial.driver.script import Script

if TYPE_CHECKING:
    from repro_audit.trial.driver.bundle import Bundle

Built: TypeAlias = Callable[[Any], None]


def train(
    build: Build,
    *,
    probe: Probe,
    seed: int,
    steps: int,
    built: Built,
    notes: Notes,
    checkpoint: Checkpoint | None = None,
    whole_epochs: bool = False,
) -> None:
    """Build and train for at most `steps` optimizer steps, under an installed probe.

    Args:
        built: called with the model, or None where it isn't known, after `build` and before training.
        notes: emptied and filled anew.
        checkpoint: where the training may be cut in two, and whether it is; None: it is not.
        whole_epochs: no epoch is left early, though it takes much longer to come to its end.

    Raises:
        TargetError: `build` returned something that is not accepted, or nothing trained. What the program itself
            raises passes through.
    """
    notes.assumptions.clear()
    notes.left_early = None
    cut = checkpoint or Checkpoint()
    cut.procedure = notes.trains_itself = True  # unless it hands over parts to train
    notes.what = build.name if isinstance(build, Script) else f"{_name(build)}()"
    try:
        if isinstance(build, Script):
            _run(build, probe)
        elif (bundle := _build(build, probe, seed, notes)) is not None:
            _train(
                bundle,
                probe=probe,
                steps=steps,
                built=built,
                notes=notes,
                checkpoint=cut,
                whole_epochs=whole_epochs,
            )
    except StopTraining:
        pass
    if notes.facts is None:  # else that was done after the last step
        conclude(probe, notes)


def conclude(probe: Probe, notes: Notes) -> None:
    """Note and observe what is known at the end of a training.

    Raises:
        NeverTrainedError: nothing trained.
    """
    _fill(notes, probe.loaders)
    notes.ended = notes.trains_itself and not probe.stopped
    if probe.installed:
        probe.hooks.finish()
    if not probe.steps:
        raise _never_trained(probe, notes)


def _run(script: Script, probe: Probe) -> None:
    """Run a script. One that exits with success once it has trained came to its end."""
    try:
        script()
    except SystemExit as error:
        if error.code not in {None, 0} or not probe.steps:
            raise


def _build(build: Build, probe: Probe, seed: int, notes: Notes) -> Bundle | None:
    """Call `build`; None where it did the training itself."""
    arguments = _arguments(build, seed)
    notes.accepts_seed = bool(arguments)
    itself = f"training: {_name(build)}() did it itself"
    try:
        returned = build(**arguments)
    except StopTraining:
        notes.assume(itself)
        raise

    from repro_audit.trial.driver.bundle import recognise

    try:
        return recognise(returned)
    except TargetError:
        if not probe.steps:
            raise
        notes.assume(itself)
        return None


def _name(build: Build) -> str:
    return getattr(build, "__name__", "build")


def _arguments(build: Build, seed: int) -> dict[str, int]:
    """The seed, where `build` has a parameter for it."""
    try:
        signature = inspect.signature(build)
    except ValueError:  # a builtin without a signature
        return {}
    parameter = signature.parameters.get("seed")
    takes_seed = parameter is not None and parameter.kind not in {
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.VAR_POSITIONAL,
        inspect.Parameter.VAR_KEYWORD,
    }
    arguments = {"seed": seed} if takes_seed else {}
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise TargetError(
            f"{_name(build)}{signature} can not be called: {error}.",
            why="the audit calls build(), or build(seed=...) where it has a parameter of that name",
            next_step="give its other parameters default values",
        ) from None
    return arguments


def _train(
    bundle: Bundle,
    *,
    probe: Probe,
    steps: int,
    built: Built,
    notes: Notes,
    checkpoint: Checkpoint,
    whole_epochs: bool,
) -> None:
    """Train what `build` returned."""
    from repro_audit.trial.driver.bundle import Procedure
    from repro_audit.trial.driver.loop import Loop

    built(bundle.model)
    if bundle.model is not None:
        probe.hooks.module(bundle.model)
    if isinstance(bundle, Procedure):
        notes.what = bundle.what
        bundle.run()
        return
    notes.what = "train_step" if bundle.train_step is not None else "the loop over the loader"
    checkpoint.procedure = notes.trains_itself = False
    Loop(
        bundle,
        probe=probe,
        steps=steps,
        notes=notes,
        checkpoint=checkpoint,
        whole_epochs=whole_epochs,
    ).run()


def _fill(notes: Notes, seen: list[LoaderFacts]) -> None:
    """Sum up the loaders. How much was seen counts in those that training read, as far as that can be told."""
    notes.loaders = [
        {
            "num_workers": each.num_workers,
            "batch_size": each.batch_size,
            "persistent": each.persistent,
            "dataset": each.dataset,
        }
        for each in seen
        if each.torch
    ]
    kind = [each for each in seen if each.torch] or seen
    training = [each for each in kind if each.training] or kind
    totals = [each.samples_total for each in training]
    lengths = [each.batches_per_epoch for each in training]
    notes.samples_seen = sum(each.samples for each in training)
    notes.samples_total = sum(filter(None, totals)) if totals and None not in totals else None
    notes.batches_seen = sum(each.batches for each in training)
    notes.batches_per_epoch = (
        sum(filter(None, lengths)) if lengths and None not in lengths else None
    )
    notes.epochs = max((each.epochs for each in training), default=0)


def _never_trained(probe: Probe, notes: Notes) -> NeverTrainedError:
    if probe.other_thread:
        return NeverTrainedError(
            f"The target never trained in its main thread: an optimizer stepped in the thread {probe.other_thread!r}.",
            why="only the main thread is observed, since the order of what several threads do is not fixed",
            next_step="have the main thread call the training, or name the function that trains: FILE.py:FUNCTION",
        )
    seen = "torch was never imported"
    if probe.installed:
        models = ", ".join(dict.fromkeys(probe.models)) or "none"
        seen = (
            f"{notes.batches_seen} batches were read, {probe.backwards} losses were backpropagated, and the models "
            f"that ran are: {models}"
        )
    return NeverTrainedError(
        f"The target never trained: {notes.what} ended without a step of an optimizer.",
        why=seen,
        next_step="steps are counted at step() of a torch.optim.Optimizer, or where parameters change after a "
        "backward(); see that the training makes at least one, in this process",
    )
