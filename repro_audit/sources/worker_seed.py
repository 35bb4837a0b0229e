"""Two DataLoader workers, or two epochs, draw the same random numbers.

DOC
"""

from __future__ import annotations

import random
import sys
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from repro_audit.probe.workers import SharedStream, read_streams, shared_streams
from repro_audit.source import Fix, Levels, Scope, Source, Verdict
from repro_audit.sources._ambient import OTHER, OTHER_SEED, PINNED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from repro_audit.experiment import Judgement
    from repro_audit.facts import Facts, Json
    from repro_audit.trial.context import TrialContext

ID = "worker-seed"
INIT_FN = 9
"""Position of `worker_init_fn` among the arguments of torch's worker loop."""


def levels(facts: Facts) -> Levels | str:
    """Another state of the workers' ambient generators, after PyTorch has seeded them."""
    if not any(loader["num_workers"] for loader in facts.loaders):
        return "no DataLoader with workers was iterated"
    return Levels(varied=(OTHER,), alone=True)


@contextmanager
def apply(level: str, trial: TrialContext) -> Iterator[None]:
    """Reseed the ambient generators of each worker between PyTorch's seeding and the program's `worker_init_fn`."""
    if level == OTHER:
        trial.when_imported("torch", _perturb_workers)
    yield


def _perturb_workers() -> None:
    worker = sys.modules["torch"].utils.data._utils.worker
    original = worker._worker_loop

    def loop(*args: Any) -> None:
        before, init_fn, after = args[:INIT_FN], args[INIT_FN], args[INIT_FN + 1 :]
        original(*before, _reseeded(init_fn), *after)

    worker._worker_loop = loop


def _reseeded(init_fn: Callable[[int], None] | None) -> Callable[[int], None]:
    def init(worker_id: int) -> None:
        seed = OTHER_SEED + worker_id
        random.seed(seed)
        sys.modules["torch"].manual_seed(seed)
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed(seed)
        if init_fn is not None:
            init_fn(worker_id)

    return init


def survey(trial: TrialContext) -> Json:
    """The streams that two workers, or two epochs, had in common."""
    return [
        asdict(shared) for shared in shared_streams(read_streams(trial.directory / "workers.jsonl"))
    ]


def judge(judgement: Judgement, facts: Facts) -> Verdict:
    """A shared stream is a defect, seen; a program that relies on PyTorch's own seeding of workers is none."""
    shared = [SharedStream(**record) for record in facts.survey.get(ID) or ()]
    if shared:
        return Verdict(
            status="broke",
            reason=f"{_in_words(shared[0])}, so what should be random repeats, by the number of workers",
            evidence=tuple(_in_words(stream) for stream in shared),
        )
    if judgement.status == "broke":
        return Verdict(
            status="delegated",
            reason="samples depend on the seeding that PyTorch does in each worker, and no two workers share a stream",
        )
    held = "no two workers share a stream, and another state at their start changes nothing"
    return Verdict(status=judgement.status, reason=judgement.note or held)


def _in_words(shared: SharedStream) -> str:
    (first_epoch, first_worker), (second_epoch, second_worker) = shared.first, shared.second
    if shared.kind == "epochs":
        return (
            f"epochs {first_epoch} and {second_epoch} of worker {first_worker} draw the same numbers from "
            f"{shared.generator}"
        )
    return (
        f"workers {first_worker} and {second_worker} draw the same numbers from {shared.generator}"
    )


def fix(_facts: Facts) -> Fix:
    """Give each worker a generator of its own."""
    return Fix(
        summary="Make the dataset's generator in the worker, from the seed that PyTorch gives it: that seed differs by "
        "worker and by epoch.",
        snippet="def seed_worker(worker_id):\n"
        "    info = torch.utils.data.get_worker_info()\n"
        "    info.dataset.rng = np.random.default_rng(info.seed)\n\n\n"
        "loader = DataLoader(dataset, num_workers=2, worker_init_fn=seed_worker)",
    )


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.SETTINGS,
    pinned=PINNED,
    levels=levels,
    apply=apply,
    judge=judge,
    fix=fix,
    survey=survey,
)
