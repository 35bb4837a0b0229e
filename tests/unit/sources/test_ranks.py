"""What the ranks of one run have in common, and should not, or have not, and should."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from torch.utils.data import DistributedSampler

from repro_audit.context import TrialContext
from repro_audit.sources import rank_divergence, rank_seed
from repro_audit.sources._ranks import AS_IS
from repro_audit.storage.facts import Facts
from repro_audit.storage.trace import Phase, Role, Trace, TraceWriter

if TYPE_CHECKING:
    from pathlib import Path

STEPS = 3


class Ranks:
    """Two ranks that average their gradients, each with batches and random numbers of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.bits: dict[tuple[int, int, Phase, str], int] = {}
        for rank in (0, 1):
            for step in range(STEPS):
                self.bits[rank, step, Phase.DATA, "rng.torch"] = 10 * step + rank
                self.bits[rank, step, Phase.DATA, "batch"] = 20 * step + rank
                self.bits[rank, step, Phase.BACKWARD, "grad.module.weight"] = step
                self.bits[rank, step, Phase.OPTIMIZER, "param.module.weight"] = step

    def alike(self, phase: Phase, name: str) -> None:
        """Have the second rank see what the first one does."""
        for step in range(STEPS):
            self.bits[1, step, phase, name] = self.bits[0, step, phase, name]

    def traces(self) -> list[Trace]:
        for rank in (0, 1):
            writer = TraceWriter(self._directory / str(rank))
            for (of, step, phase, name), bits in self.bits.items():
                if of == rank:
                    role = Role.CONTEXT if name.startswith("rng.") else Role.OUTCOME
                    ids = writer.intern(f"rank{rank}.{name}"), writer.intern("")
                    writer.add(step, int(phase), int(role), *ids, bits.to_bytes(16, "big"))
            writer.close()
        return [Trace.open(self._directory / str(rank)) for rank in (0, 1)]


@pytest.fixture
def ranks(tmp_path: Path) -> Ranks:
    return Ranks(tmp_path)


def divergence(
    ranks: Ranks, *written: dict[str, Any], wrapped: bool = False
) -> tuple[Facts, dict[str, Any]]:
    found = [{"wrapped": wrapped, "written": each} for each in written or ({}, {})]
    survey = rank_divergence.survey_of_ranks(ranks.traces(), found)
    return Facts(ranks=2, survey={rank_divergence.ID: survey}, varied=survey), survey


def test_ranks_that_stay_alike(ranks: Ranks) -> None:
    facts, found = divergence(ranks)
    assert (found["shared"], found["parted"]) == (1, None)
    assert not rank_divergence.places(facts)


def test_a_parameter_that_differs_after_equal_gradients(ranks: Ranks) -> None:
    ranks.bits[1, 1, Phase.OPTIMIZER, "param.module.weight"] = 99
    first = {"module.weight": [("train.py", 7, "a"), ("train.py", 7, "b")]}
    second = {"module.weight": [("train.py", 7, "a"), ("train.py", 9, "x"), ("train.py", 7, "y")]}
    for order in ((first, second), (second, first)):
        facts, found = divergence(ranks, *order)
        assert (found["parted"]["step"], found["parted"]["phase"]) == (1, "optimizer")
        (place,) = rank_divergence.places(facts)
        assert (place.file, place.line) == ("train.py", 9)
        assert place.what.startswith(f"rank {order.index(second)} writes to module.weight here")


def test_a_line_that_leaves_other_values(ranks: Ranks) -> None:
    ranks.bits[1, 0, Phase.OPTIMIZER, "param.module.weight"] = 99
    facts, _ = divergence(
        ranks,
        {"module.weight": [("train.py", 7, "a")]},
        {"module.weight": [("train.py", 7, "b")]},
    )
    (place,) = rank_divergence.places(facts)
    assert (place.line, place.what[:11]) == (7, "it leaves a")


@pytest.mark.parametrize("wrapped", [True, False])
def test_gradients_that_differ(ranks: Ranks, wrapped: bool) -> None:
    """That is a defect where DistributedDataParallel should have averaged them; else they have nothing in common."""
    for step in range(STEPS):
        ranks.bits[1, step, Phase.BACKWARD, "grad.module.weight"] = 50 + step
    facts, found = divergence(ranks, wrapped=wrapped)
    if wrapped:
        assert (found["parted"]["step"], found["parted"]["phase"]) == (0, "backward")
        assert ".module" in rank_divergence.fix(facts).summary
    else:
        assert (found["shared"], found["parted"]) == (0, None)
        assert "share gradients" in str(rank_divergence.levels(facts))


def seeds(ranks: Ranks) -> dict[str, Any]:
    return dict(rank_seed.survey_of_ranks(ranks.traces(), [None, None]))


def test_ranks_with_streams_of_their_own(ranks: Ranks) -> None:
    assert seeds(ranks) == {"sharded": True, "shared": [], "seedings": [], "same_epoch": False}


def test_ranks_with_one_stream(ranks: Ranks) -> None:
    ranks.alike(Phase.DATA, "rng.torch")
    assert seeds(ranks)["shared"] == [{"library": "torch", "ranks": [0, 1]}]


def test_a_stream_that_nothing_but_the_loader_draws_from(ranks: Ranks) -> None:
    for step in range(1, STEPS):
        ranks.bits[0, step, Phase.DATA, "rng.torch"] = 1
    ranks.alike(Phase.DATA, "rng.torch")
    assert not seeds(ranks)["shared"]


def test_ranks_that_read_the_same_samples(ranks: Ranks) -> None:
    ranks.alike(Phase.DATA, "batch")
    assert not seeds(ranks)["sharded"]


@pytest.mark.parametrize("called", [True, False])
def test_a_sampler_without_set_epoch(tmp_path: Path, called: bool) -> None:
    trial = TrialContext(seed=0, setting={}, directory=tmp_path, root=tmp_path)
    sampler: DistributedSampler[Any] = DistributedSampler(range(8), num_replicas=2, rank=0)  # type: ignore[arg-type]
    with rank_seed.apply(AS_IS, trial):
        for epoch in range(2):
            if called:
                sampler.set_epoch(epoch)
            list(sampler)
    assert rank_seed.survey(trial)["same_epoch"] is not called
