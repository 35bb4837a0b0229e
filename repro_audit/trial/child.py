"""One trial, in its own process: put the setting in force, run the target under the probe, leave trace and facts."""

from __future__ import annotations

import dataclasses
import faulthandler
import fcntl
import os
import random
import sys
import sysconfig
import tempfile
import time
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from repro_audit import rng, torch_internals
from repro_audit.context.checkpoint import Checkpoint, chosen
from repro_audit.errors import SourceFailedError, TargetError
from repro_audit.isolation import compiled
from repro_audit.isolation.processes import STACKS_SIGNAL
from repro_audit.probe import inputs
from repro_audit.sources import built_in, of_trial
from repro_audit.storage.events import DETAIL
from repro_audit.storage.facts import READ_AT_FIRST_KERNEL, READ_AT_IMPORT, Facts
from repro_audit.storage.trace import TraceWriter
from repro_audit.trial.failure import failure_of
from repro_audit.trial.request import BEGUN, FACTS, STACKS, VALUES
from repro_audit.trial.spawned import Setting, context_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from repro_audit.context import TrialContext
    from repro_audit.probe import Probe
    from repro_audit.probe.detail.session import Detailed
    from repro_audit.probe.digest.capture import ValueWriter
    from repro_audit.source import Source
    from repro_audit.target import Target
    from repro_audit.trial.driver.loading import Build
    from repro_audit.trial.driver.notes import Notes
    from repro_audit.trial.request import TrialRequest

STACKS_DESCRIPTOR = 200


def run_trial(request: TrialRequest) -> int:
    """Run a trial, in the tree that it was given, and write `facts.json` into its directory.

    Returns:
        The exit status of the process: 0, or 1 where the target failed.
    """
    fresh = "torch" not in sys.modules
    directory = request.directory
    listen_for_stacks(directory / STACKS)
    prepare(request)
    context = context_of(request)
    facts = _run(request, context, fresh=fresh)
    facts.save(directory / FACTS)
    return 1 if facts.failure else 0


def listen_for_stacks(path: Path) -> None:
    """Have a signal write the stacks of all threads: it is sent where the trial runs out of time."""
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        # Out of the way: programs and libraries may count on the lowest numbers.
        high = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, STACKS_DESCRIPTOR)
    except OSError:  # beyond the limit
        return
    finally:
        os.close(descriptor)
    faulthandler.register(STACKS_SIGNAL, file=high, all_threads=True)


def prepare(request: TrialRequest) -> None:
    """Give this process, and those that it starts, what the trial has of its own: temporary files, and edited ones."""
    _private_temporary_directory(request)
    _edit(request)


def _edit(request: TrialRequest) -> None:
    """Rewrite files of this trial's own tree, before anything of the program is loaded."""
    for name, text in request.edited.items():
        path = request.tree.map(request.tree.root / name)
        before = path.stat()
        path.write_bytes(text.encode())
        # Bytecode that was compiled from the file as it was must not pass for this one's.
        os.utime(path, (before.st_atime, before.st_mtime + 10))


def _private_temporary_directory(request: TrialRequest) -> None:
    temporary = context_of(request).temporary[0]
    os.environ["TMPDIR"] = str(temporary)
    tempfile.tempdir = None
    compiled.begin(temporary, request.compiled)


def _run(request: TrialRequest, context: TrialContext, *, fresh: bool) -> Facts:
    """Run the target; a failure of its own becomes part of the facts."""
    from repro_audit.trial.driver.notes import Notes

    notes = Notes()
    try:
        return _train(request, context, notes, fresh=fresh)
    except BaseException as error:  # whatever it is, it is shown; whose it is, further runs tell
        if notes.facts is not None:
            # All steps were made: what comes of their end is no part of the training.
            return notes.facts
        return Facts(failure=failure_of(error, request))


def _train(request: TrialRequest, context: TrialContext, notes: Notes, *, fresh: bool) -> Facts:
    """Load the target under the setting, and train; what the last run in this process shows."""
    from repro_audit.probe import files
    from repro_audit.trial.driver import loading

    sources = of_trial(request.plugins)
    trace = TraceWriter(request.directory / "trace")
    with ExitStack() as stack:
        if request.probed:
            log = request.directory / "files.jsonl"
            files.install(request.tree.map(request.tree.root), log, outside=request.kept)
        for name, level in request.setting.items():
            stack.enter_context(in_force(sources[name], level, context))
        seed_ambient(context)
        detailed = detailed_of(request)
        stack.enter_context(detailed or nullcontext())
        if fresh:
            context.when_imported("torch", partial(_note_environment, context, dict(os.environ)))
        build = loading.load(_mapped(request, context))
        at_import = tuple(context.reseeds)
        states = rng.snapshot() if context.runs > 1 else None
        run = partial(
            _run_once, build, request, context, notes=notes, trace=trace, detailed=detailed
        )
        for _ in range(context.runs - 1):
            run(checkpoint=Checkpoint())
            _note_seedings(context, at_import)
            if states is not None:
                _seed_again(states, context.seeded_at_import)
            trace.clear()
            context.models.clear()

        def told(probe: Probe) -> Facts:
            _note_seedings(context, at_import)
            if request.probed:
                trace.close()
            take_surveys({name: sources[name] for name in request.setting}, context)
            return facts_of(context, notes, probe, request, fresh=fresh)

        probe = run(checkpoint=context.checkpoint, told=told)
        return notes.facts or told(probe)


def _note_environment(context: TrialContext, before: dict[str, str]) -> None:
    """Note which variables the program has set before PyTorch was imported, of those that are read by then."""
    changed = {name for name, value in os.environ.items() if before.get(name) != value}
    changed |= before.keys() - os.environ.keys()
    context.set_before_torch = sorted(
        name for name in changed if name.startswith((*READ_AT_IMPORT, *READ_AT_FIRST_KERNEL))
    )


def _note_seedings(context: TrialContext, at_import: tuple[str, ...]) -> None:
    """Note the generators that the program seeded as it was imported, and not again in a run."""
    in_runs = context.reseeds[len(at_import) :]
    context.seeded_at_import = [
        library for library in dict.fromkeys(at_import) if library not in in_runs
    ]


def _seed_again(states: rng.GeneratorStates, seeded_at_import: list[str]) -> None:
    """Put the generators back as they were before the first run, as a caller that seeds before each run would.

    A program that seeds as it is imported has no such caller, and nobody imports it again: those go on where they are.
    """
    now = rng.snapshot()
    kept: dict[str, Any] = {}
    for library in seeded_at_import:
        kept[library] = getattr(now, library)
        if library == "torch":
            kept.update(cuda=now.cuda, cuda_pending=now.cuda_pending)
    rng.restore(dataclasses.replace(states, **kept))


def detailed_of(request: TrialRequest) -> Detailed | None:
    """What sees every op and line, where that is wanted."""
    watch, window = request.watch, request.watch.window
    if window is None:
        return None
    from repro_audit.probe.detail.ops import Ops
    from repro_audit.probe.detail.session import Detailed
    from repro_audit.storage.values import open_values

    given = open_values(Path(watch.fed_by)) if watch.feed else {}
    return Detailed(
        request.directory / DETAIL,
        ops=Ops,
        from_step=window.first,
        to_step=window.last,
        homes={
            str(place): str(request.tree.root)
            for place in (request.tree.map(request.tree.root), request.tree.elsewhere())
            if place is not None and place != request.tree.root
        },
        values=value_writer(request),
        capture=frozenset(watch.capture),
        feed={key: given[key] for key in watch.feed if key in given},
    )


def value_writer(request: TrialRequest) -> ValueWriter | None:
    """Where the values go that were asked for."""
    if not (request.watch.capture or request.watch.sample):
        return None
    from repro_audit.probe.digest.capture import ValueWriter

    return ValueWriter(request.directory / VALUES, sample=request.watch.sample)


def _keeps_loading(request: TrialRequest) -> bool:
    return request.watch.window is not None and request.watch.window.loading


@contextmanager
def in_force(source: Source, level: str, context: TrialContext) -> Iterator[None]:
    """The level, applied. That a varied one is impossible is a result; a pinned one fails us, not the target."""
    with ExitStack() as stack:
        context.internals = source.internals
        try:
            stack.enter_context(source.apply(level, context))
        except Exception as error:
            if level != source.pinned:
                raise
            _fails(source, "apply", error, context)
        context.internals = ()
        yield


def take_surveys(sources: Mapping[str, Source], context: TrialContext) -> None:
    """Note what each source found, and what it lacks of PyTorch's internals."""
    for name, source in sources.items():
        if lack := torch_internals.lacking(source.internals):
            context.lacking[name] = lack
        if source.survey is not None:
            try:
                context.notes[name] = source.survey(context)
            except Exception as error:
                context.notes[name] = None
                _fails(source, "survey", error, context)


def _fails(source: Source, what: str, error: Exception, context: TrialContext) -> None:
    """A plugin that fails is left out, and the report says so; a source of our own that does is a defect."""
    why = f"its {what}() fails with {type(error).__name__}: {error}"
    if source.id in built_in():
        raise SourceFailedError.of(source.id, why) from error
    context.failing[source.id] = why


def _run_once(
    build: Build,
    request: TrialRequest,
    context: TrialContext,
    *,
    notes: Notes,
    trace: TraceWriter,
    detailed: Detailed | None,
    checkpoint: Checkpoint,
    told: Callable[[Probe], Facts] | None = None,
) -> Probe:
    """One run of the program, under a probe of its own.

    Args:
        told: of the last run, what it shows. It is saved at once where a program that trains by itself has made all
            its steps, since that may catch what is to end it, and go on for long.
    """
    if detailed is not None and not _keeps_loading(request):
        detailed.begin_again()
    from repro_audit.trial.driver import own_checkpoint
    from repro_audit.trial.driver import training as driver
    from repro_audit.trial.driver.script import watch_for_ranks

    def enough() -> None:
        if told is None or not notes.trains_itself:
            return
        context.training_seconds = time.monotonic() - started
        driver.conclude(probe, notes)
        if detailed is not None:
            detailed.save()
        notes.facts = told(probe)
        notes.facts.save(request.directory / FACTS)

    def begun() -> None:
        context.loading_seconds = time.monotonic() - started
        (request.directory / BEGUN).touch()

    probe = probe_of(request, context, trace=trace, detailed=detailed, trial=request.directory)
    probe.begun, probe.enough = begun, enough
    probe.resumable = checkpoint.arguments is not None
    context.processes.restart()
    for callback in context.on_run:
        callback()
    started = time.monotonic()
    with own_checkpoint.followed(context, checkpoint, probe):
        if request.target.mode == "script":
            context.when_imported("torch", probe.install)
            context.when_imported("torch", partial(watch_for_ranks, probe))
        else:
            probe.install()
        try:
            driver.train(
                build,
                probe=probe,
                seed=context.seed,
                steps=request.most_steps,
                built=context.built,
                notes=notes,
                checkpoint=checkpoint,
                whole_epochs=request.whole_epochs,
            )
        finally:
            probe.uninstall()
    if checkpoint.half == "first" and checkpoint.steps is None:
        raise TargetError("The training was over before it could be cut in two.")
    context.training_seconds = time.monotonic() - started
    return probe


def probe_of(
    request: TrialRequest,
    context: TrialContext,
    *,
    trace: TraceWriter,
    detailed: Detailed | None,
    trial: Path,
) -> Probe:
    """What is to observe a training, as the request has it.

    Args:
        trial: the trial's directory, which is not the request's in one of several processes that train.
    """
    from repro_audit.probe import Probe

    window, most = request.watch.window, request.most_steps
    return Probe(
        trace=trace,
        detailed=detailed,
        values=value_writer(request),
        capture=frozenset(request.watch.capture),
        max_steps=most if window is None else min(most, window.last + 1),
        until_epoch=request.until_epoch,
        absent=not request.probed,
        workers=request.directory / "workers.jsonl",
        prepare=Setting(str(trial), context.processes),
        met=context.met,
    )


def _mapped(request: TrialRequest, context: TrialContext) -> Target:
    """The target, in the copy of the tree where the tree is one, with what has it resume where it is to."""
    target = request.target
    if request.half == "second":
        target = dataclasses.replace(target, argv=(*target.argv, *(request.resume_args or ())))
    if target.path is None:
        return target
    path = Path(target.path) if context.start is None else context.start / target.path
    return dataclasses.replace(target, path=str(request.tree.map(path)))


def seed_ambient(context: TrialContext) -> None:
    """Seed every ambient generator, each as soon as its library is there; none where nothing is pinned."""
    if not context.setting:
        return

    def seed_numpy() -> None:
        sys.modules["numpy"].random.seed(context.seeds["numpy"])

    def seed_torch() -> None:
        torch = sys.modules["torch"]
        torch.manual_seed(context.seeds["torch"])
        if context.seeds["cuda"] != context.seeds["torch"]:
            torch.cuda.manual_seed_all(context.seeds["cuda"])

    random.seed(context.seeds["python"])
    context.when_imported("numpy", seed_numpy)
    context.when_imported("torch", seed_torch)


def _share_held(device: int) -> float:
    """Of a CUDA device's memory, the part that this process held when it held most."""
    import torch

    held: int = torch.cuda.max_memory_reserved(device)
    total: int = torch.cuda.get_device_properties(device).total_memory
    return held / total


def facts_of(
    context: TrialContext, notes: Notes, probe: Probe, request: TrialRequest, *, fresh: bool
) -> Facts:
    """What this trial learnt."""
    import torch

    if request.kept:
        inputs.note(context.directory)

    from repro_audit.probe.digest.tensors import opaque_forms
    from repro_audit.trial.fingerprint import fingerprint

    target = request.target
    used = torch.cuda.is_initialized()
    devices = range(torch.cuda.device_count())  # starts no device
    return Facts(
        steps=probe.steps,
        runs=context.runs,
        training_seconds=context.training_seconds,
        loading_seconds=context.loading_seconds,
        step_seconds=_median_step(probe.step_ends),
        losses=tuple(probe.losses),
        finite=tuple(probe.stakes.finite),
        gradients=probe.stakes.gradients,
        holds=probe.stakes.holds,
        rate=probe.stakes.rate,
        assumptions=tuple(notes.assumptions),
        accepts_seed=notes.accepts_seed,
        ended=notes.ended,
        trains_itself=notes.trains_itself,
        reseeds=tuple(dict.fromkeys(context.reseeds)),
        loaders=tuple(notes.loaders),
        samples_seen=notes.samples_seen,
        samples_total=notes.samples_total,
        batches_seen=notes.batches_seen,
        batches_per_epoch=notes.batches_per_epoch,
        epochs=notes.epochs,
        left_early=notes.left_early,
        threads=torch.get_num_threads(),
        cuda=", ".join(map(torch.cuda.get_device_name, devices)) if used else "",
        cuda_idle=bool(devices) and not used,
        cuda_share=max(map(_share_held, devices), default=0.0) if used else 0.0,
        torch=torch.__version__,
        notebook=target.is_notebook,
        runs_once=target.mode == "script" and not target.is_notebook,
        own_files=_own_files(context.root),
        fingerprint=fingerprint() if request.watch.sample else {},
        cut=chosen(context.checkpoint.writes, probe.steps),
        modules=_importable_modules() if fresh else (),
        unseen=opaque_forms(),
        survey=context.notes,
        unpinned={name: lines for name, lines in context.unpinned.items() if lines},
        failing=context.failing,
        lacking=context.lacking,
        set_before_torch=tuple(context.set_before_torch),
    )


def _median_step(ends: list[float]) -> float:
    return median(after - before for before, after in pairwise(ends)) if len(ends) > 1 else 0.0


def _own_files(root: Path) -> tuple[str, ...]:
    """The program's own modules below the tree, relative to it."""
    from repro_audit.probe.files import program_modules

    files = {file for _, file, _ in program_modules()}
    own = (Path(file) for file in files if file.endswith(".py"))
    return tuple(sorted(str(file.relative_to(root)) for file in own if file.is_relative_to(root)))


def _importable_modules() -> tuple[str, ...]:
    """Modules of the standard library and site-packages that are loaded, in the order of their import."""
    prefixes = tuple(
        sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")
    )
    names = []
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        origin = getattr(spec, "origin", None) or ""
        if spec is not None and spec.name == name and origin.startswith(prefixes):
            names.append(name)
    return tuple(names)
