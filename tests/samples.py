"""What an audit of each sample finds, under the default `--require rerun`."""

from __future__ import annotations

from dataclasses import dataclass

RERUN = ("python_rng", "numpy_rng", "torch_rng", "hash_seed", "artifact_cache", "pickled_embedding")
OTHER = ("num_workers", "process_reuse", "thread_count", "seed_effect")
CLEAN = ("clean_mlp", "clean_cnn_workers", "clean_lstm", "clean_transformer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A sample and its expected report."""

    name: str
    broke: tuple[str, ...] = ()
    verdict: str = "reproducible"

    @property
    def exit_code(self) -> int:
        """The exit code that goes with the verdict."""
        return {"reproducible": 0, "not-reproducible": 1}[self.verdict]


def _not_reproducible(name: str, *broke: str) -> Sample:
    return Sample(name=name, broke=broke, verdict="not-reproducible")


_BROKEN = (
    *(_not_reproducible(name, name.replace("_", "-")) for name in RERUN),
    _not_reproducible("nondeterministic_op", "nondeterministic-op"),
    _not_reproducible("three_causes", "artifact-cache", "num-workers", "process-reuse"),
    # These break promises that are not required by default.
    *(Sample(name=name, broke=(name.replace("_", "-"),)) for name in OTHER),
    # Workers with one stream repeat each other's samples, so their number decides what is drawn.
    Sample(name="worker_seed", broke=("num-workers", "worker-seed")),
)

SAMPLES = (
    *_BROKEN,
    *(Sample(name=f"{sample.name}_mended") for sample in _BROKEN),
    *(Sample(name=name) for name in CLEAN),
)
"""Every sample: the broken ones, each one's mended twin, and the clean ones."""
