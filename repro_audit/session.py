"""What an audit has while it runs: interpreters, a place for its trials, and what is asked of them."""

from __future__ import annotations

import linecache
import os
import secrets
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import xxhash

from repro_audit.errors import UsageError
from repro_audit.isolation.room import no_room
from repro_audit.isolation.sandbox import Isolation, elsewhere, plan_copies, plan_isolation
from repro_audit.sources import built_in, catalogue
from repro_audit.trial.kept import Kept
from repro_audit.trial.oracle import TrialOracle, deciding_code
from repro_audit.trial.program import fingerprint
from repro_audit.trial.runner import Runner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from repro_audit.config import Options
    from repro_audit.report.progress import Progress
    from repro_audit.source import Source
    from repro_audit.target import Target
    from repro_audit.trial.cluster.runner import ClusterRunner
    from repro_audit.trial.runner import Python


class Shown(TypedDict):
    """What runners tell of trials."""

    progress: Callable[[str, dict[str, str] | None], None]
    planned: Callable[[int], None]


SHOWN_VARIED = 3
"""Progress names what a trial varies, up to so many sources."""


@contextmanager
def session(
    target: Target,
    options: Options,
    progress: Progress,
    *,
    python: Python | None = None,
    kept_in: Path | None = None,
) -> Iterator[TrialOracle]:
    """What runs trials of a target from the current directory; nothing is left of it in the end.

    Args:
        target: what is run.
        options: how.
        progress: shows trials as they run.
        python: which interpreters run the trials; this one where none is given.
        kept_in: where trials are kept for a later audit; None for nowhere.
    """
    linecache.checkcache()  # a file may have changed since another session read lines of it
    shown = Shown(progress=_shown_on(progress), planned=progress.plan)
    if options.on is not None:
        with _on_cluster(options.on, target, options, shown) as (runner, isolation):
            yield _oracle(runner, isolation, target, options)
        return
    name = xxhash.xxh3_64_hexdigest(repr((Path.cwd(), target)).encode())
    if options.trace_dir is None:
        isolation = plan_isolation(Path.cwd(), name=name if kept_in else "")
    else:
        isolation = plan_copies(Path.cwd(), options.trace_dir)
    printed = (Path(f"/proc/self/fd/{stream}").resolve() for stream in (1, 2))
    words = (*target.argv, *target.launched, *(options.resume_args or ()))
    look = partial(fingerprint, isolation.root, words, {*options.outputs, *printed})
    kept = Kept(kept_in, name, look, goes_on=options.goes_on) if kept_in else None
    try:
        with Runner(
            side_by_side=options.jobs or min(2, os.cpu_count() or 1),
            timeout=options.timeout,
            temporary=_temporary_directory(isolation),
            python=python,
            **shown,
        ) as runner:
            yield _oracle(runner, isolation, target, options, kept)
    except OSError as error:
        raise no_room(error, isolation.scratch) or error from None
    finally:
        isolation.cleanup()


def _oracle(
    runner: Runner | ClusterRunner,
    isolation: Isolation,
    target: Target,
    options: Options,
    kept: Kept | None = None,
) -> TrialOracle:
    return TrialOracle(
        runner=runner,
        isolation=isolation,
        sources=_in_force(options),
        target=target,
        seed=options.seed,
        steps=options.steps,
        until_epoch=options.until_epoch,
        fresh=options.fresh,
        resume_args=options.resume_args if target.mode == "script" else None,
        on_several=options.trace_dir is not None,
        kept=kept,
    )


@contextmanager
def _on_cluster(
    address: str, target: Target, options: Options, shown: Shown
) -> Iterator[tuple[ClusterRunner, Isolation]]:
    """A runner on the nodes of a Ray cluster, and what stands here for the trees that trials have there."""
    from repro_audit.trial.cluster.connection import Cluster
    from repro_audit.trial.cluster.lane import Plan
    from repro_audit.trial.cluster.runner import ClusterRunner

    root = Path(os.path.realpath(Path.cwd()))
    if target.path is not None and not Path(os.path.realpath(target.path)).is_relative_to(root):
        raise UsageError(
            f"{target.path} is not in the working directory, which is what the nodes are sent.",
            where=f"--on {address}",
            next_step=f"start the audit in a directory that holds all of the program, instead of {root}",
        )
    plan = Plan(
        audit=secrets.token_hex(4),
        root=str(root),
        environment=dict(os.environ),
        deciding=deciding_code(_in_force(options)),
    )
    cluster = Cluster(address, root)
    try:
        with ClusterRunner(
            cluster, plan, side_by_side=options.jobs, timeout=options.timeout, **shown
        ) as runner:
            isolation = elsewhere(root, runner.opened.isolation, runner.opened.reason)
            try:
                yield runner, isolation
            finally:
                isolation.cleanup()
    finally:
        cluster.close()


def _in_force(options: Options) -> dict[str, Source]:
    """The sources that each trial pins: a plugin that the user leaves out is not even imported there."""
    return {
        name: source
        for name, source in catalogue().items()
        if name in built_in()
        or (name not in options.skip and (not options.only or name in options.only))
    }


def _temporary_directory(isolation: Isolation) -> Path:
    directory = isolation.scratch / "tmp"
    directory.mkdir()
    return directory


def _shown_on(progress: Progress) -> Callable[[str, dict[str, str] | None], None]:
    """Shows trials as they begin and end, in words: what they vary."""
    sources = catalogue()

    def told(trial: str, setting: dict[str, str] | None) -> None:
        if setting is None:
            progress.end(trial)
            return
        varied = [
            f"{name}: {level}" for name, level in setting.items() if level != sources[name].pinned
        ]
        pinned = "everything pinned" if setting else "everything as it is"
        many = f"{len(varied)} sources varied together" if len(varied) > SHOWN_VARIED else ""
        progress.begin(trial, many or ", ".join(varied) or pinned)

    return told
