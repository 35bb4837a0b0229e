"""What an audit of each program in `sample_models` must find, under the default `--require rerun`.

`cpu-isa` apart: a program breaks it wherever another CPU's kernels round otherwise, which on most machines is every
program but those that cap the instruction sets themselves.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Any

import torch

from repro_audit.sources import cpu_isa

CPU_ISA = cpu_isa.SOURCE.id
REPRODUCIBLE = "reproducible"
NOT_REPRODUCIBLE = "not-reproducible"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One program and what its audit must say."""

    name: str
    """The file `sample_models/NAME.py`; its target is `build`."""
    verdict: str = REPRODUCIBLE
    broke: tuple[str, ...] = ()
    """The ids of the sources with the status `broke`, sorted; all others have another one."""
    reason: str
    capped: bool = False
    """The program caps the instruction sets itself, so that `cpu-isa` must not break either."""

    cuda: bool = False
    """It breaks only on a CUDA device; without one nothing does."""

    @property
    def shows(self) -> bool:
        """Whether this machine can show what breaks."""
        return not self.cuda or torch.cuda.is_available()

    @property
    def exit_code(self) -> int:
        """What the command exits with: sources of a wider scope than `rerun` break no required promise."""
        return 0 if self.verdict == REPRODUCIBLE or not self.shows else 1

    def wrong(self, report: dict[str, Any]) -> str:
        """What is wrong with a report about it; empty where nothing is."""
        broke = {source["id"] for source in report["sources"] if source["status"] == "broke"}
        emulated = set() if self.capped else {CPU_ISA}
        expected = set(self.broke) if self.shows else set()
        verdict = self.verdict if self.shows else REPRODUCIBLE
        if CPU_ISA in expected and platform.machine() not in cpu_isa.X86:
            expected.remove(CPU_ISA)
        said = [f"overlooked: {name}" for name in sorted(expected - broke)]
        said += [f"accused: {name}" for name in sorted(broke - expected - emulated)]
        if report["verdict"] != verdict or report["exit_code"] != self.exit_code:
            said.append(f"verdict: {report['verdict']}, exit {report['exit_code']}")
        if report["unexplained"] is not None:
            said.append("something is unexplained")
        return "; ".join(said)


SAMPLES = (
    # A source of the scope `rerun` broke.
    Sample(
        name="artifact_cache",
        verdict=NOT_REPRODUCIBLE,
        broke=("artifact-cache",),
        reason="the first run trains on 32 bits, the next one on 16 that it finds in a file",
    ),
    Sample(
        name="clock",
        verdict=NOT_REPRODUCIBLE,
        broke=("clock",),
        reason="days weigh by their age, counted back from today",
    ),
    Sample(
        name="cuda_rng",
        verdict=NOT_REPRODUCIBLE,
        broke=("cuda-rng",),
        cuda=True,
        reason="the CPU's generator is seeded and no other; dropout draws on the device",
    ),
    Sample(
        name="hash_seed",
        verdict=NOT_REPRODUCIBLE,
        broke=("hash-seed",),
        reason="a set of words numbers the columns of the batches",
    ),
    Sample(
        name="nondeterministic_op",
        verdict=NOT_REPRODUCIBLE,
        broke=("nondeterministic-op",),
        reason="the backward pass of a gather of 320,000 elements races; needs two threads",
    ),
    Sample(
        name="numpy_rng",
        verdict=NOT_REPRODUCIBLE,
        broke=("numpy-rng",),
        reason="build(seed) seeds PyTorch, but the bootstrap sample comes from NumPy",
    ),
    Sample(
        name="os_entropy",
        verdict=NOT_REPRODUCIBLE,
        broke=("os-entropy",),
        reason="default_rng() without a seed draws the training set",
    ),
    Sample(
        name="object_address",
        verdict=NOT_REPRODUCIBLE,
        broke=("object-address",),
        reason="a set of nodes gives each node its row",
    ),
    Sample(
        name="outside_input",
        verdict=NOT_REPRODUCIBLE,
        broke=("outside-input",),
        reason="a command says where the training set begins",
    ),
    Sample(
        name="pickled_embedding",
        verdict=NOT_REPRODUCIBLE,
        broke=("pickled-embedding",),
        reason="unpickling the Embedding draws no random numbers; artifact-cache is relieved of it",
    ),
    Sample(
        name="process_identity",
        verdict=NOT_REPRODUCIBLE,
        broke=("process-identity",),
        reason="the id of the process seeds the noise in the training set",
    ),
    Sample(
        name="python_rng",
        verdict=NOT_REPRODUCIBLE,
        broke=("python-rng",),
        reason="build(seed) seeds PyTorch, but the training set comes from random",
    ),
    Sample(
        name="thread_timing",
        verdict=NOT_REPRODUCIBLE,
        broke=("thread-timing",),
        reason="two threads put the training set into one queue",
    ),
    Sample(
        name="three_causes",
        verdict=NOT_REPRODUCIBLE,
        broke=("artifact-cache", "num-workers", "process-reuse"),
        reason="a rounded cache, noise from NumPy in __getitem__, and a shuffling generator at module level",
    ),
    Sample(
        name="torch_rng",
        verdict=NOT_REPRODUCIBLE,
        broke=("torch-rng",),
        reason="build(seed) seeds random and NumPy, but not PyTorch",
    ),
    Sample(
        name="uninitialized_memory",
        verdict=NOT_REPRODUCIBLE,
        broke=("uninitialized-memory",),
        reason="batches are padded with whatever the memory holds",
    ),
    Sample(
        name="worker_order",
        verdict=NOT_REPRODUCIBLE,
        broke=("worker-order",),
        reason="in_order=False hands out whichever batch is ready first",
    ),
    # A source of a wider scope broke, or one of none.
    Sample(
        name="environment",
        broke=("environment",),
        reason="the hour of a trip is local time",
    ),
    Sample(
        name="file_order",
        broke=("file-order",),
        reason="classes and samples come in the order of a listing",
    ),
    Sample(
        name="checkpoint_resume",
        broke=("checkpoint-resume",),
        reason="the running mean is a plain attribute, which no state_dict holds",
    ),
    Sample(
        name="cpu_isa",
        broke=("cpu-isa",),
        reason="initial weights are scaled by a fused multiply-add where the CPU has one",
    ),
    Sample(
        name="cublas_workspace",
        broke=("cublas-workspace",),
        reason="the variable decides how the network enlarges images, on any device",
    ),
    Sample(
        name="cudnn_benchmark",
        broke=("cudnn-benchmark",),
        reason="the flag decides how melodies are padded, on any device",
    ),
    Sample(
        name="cudnn_deterministic",
        broke=("cudnn-deterministic",),
        reason="the flag decides how images are padded, on any device",
    ),
    Sample(
        name="lstm_dropout",
        broke=("lstm-dropout",),
        cuda=True,
        reason="cuDNN keeps the state of an RNN's dropout to itself",
    ),
    Sample(
        name="matmul_precision",
        broke=("matmul-precision",),
        reason="the precision that was set around the program decides an epsilon, on any device",
    ),
    Sample(
        name="num_workers",
        broke=("num-workers",),
        reason="noise from NumPy in __getitem__; worker-seed is delegated, as PyTorch seeds the workers",
    ),
    Sample(
        name="process_reuse",
        broke=("process-reuse",),
        reason="a second run finds the module's shuffling generator where the first one left it",
    ),
    Sample(
        name="seed_effect",
        broke=("seed-effect",),
        reason="build(seed) goes by another seed; every run is the same, so no promise is broken",
    ),
    Sample(
        name="thread_count",
        broke=("thread-count",),
        reason="sums over a batch of 256 rows of 128 are split among the threads",
    ),
    Sample(
        name="worker_seed",
        broke=("num-workers", "worker-seed"),
        reason="workers copy the dataset's generator; 0, 1 and 2 of them can not agree then",
    ),
    Sample(
        name="worker_start_method",
        broke=("worker-start-method",),
        reason="a spawned worker finds the global vocabulary empty",
    ),
    # Nothing broke.
    Sample(
        name="clean_cnn_workers",
        capped=True,
        reason="augmentation follows from the index and the epoch",
    ),
    Sample(
        name="clean_lstm", capped=True, reason="seeded, one thread; lstm-dropout needs CUDA to show"
    ),
    Sample(
        name="clean_mlp",
        capped=True,
        reason="seeded, one process, no files, sums too small to be split",
    ),
    Sample(name="clean_transformer", capped=True, reason="seeded, one thread"),
    Sample(name="artifact_cache_mended", reason="the first run reads back what it wrote"),
    Sample(
        name="process_identity_mended",
        reason="the seed and the number of the run make the noise; the process's id is printed",
    ),
    Sample(
        name="outside_input_mended", reason="what the command says is printed, and decides nothing"
    ),
    Sample(name="clock_mended", reason="ages count from a fixed day; only durations are read"),
    Sample(name="environment_mended", reason="hours are those of UTC"),
    Sample(name="file_order_mended", reason="listings are sorted"),
    Sample(name="checkpoint_resume_mended", reason="the running mean is a buffer"),
    Sample(name="cpu_isa_mended", capped=True, reason="all three libraries are capped"),
    Sample(name="cublas_workspace_mended", reason="the network is the same everywhere"),
    Sample(name="cudnn_benchmark_mended", reason="melodies are padded to one length"),
    Sample(name="cudnn_deterministic_mended", reason="images are padded with zeros everywhere"),
    Sample(name="cuda_rng_mended", reason="torch.manual_seed reaches every device"),
    Sample(name="lstm_dropout_mended", reason="nn.Dropout draws from the device's generator"),
    Sample(name="hash_seed_mended", reason="the set is sorted"),
    Sample(name="matmul_precision_mended", reason="the program sets the precision first"),
    Sample(name="nondeterministic_op_mended", reason="deterministic algorithms are on"),
    Sample(name="num_workers_mended", reason="the noise follows from the index and the epoch"),
    Sample(name="numpy_rng_mended", reason="NumPy is seeded too"),
    Sample(name="os_entropy_mended", reason="the generator that draws the training set is seeded"),
    Sample(name="object_address_mended", reason="a dict keeps the order of the walk"),
    Sample(name="pickled_embedding_mended", reason="built in every run; only weights are kept"),
    Sample(name="process_reuse_mended", reason="build() makes the shuffling generator"),
    Sample(name="python_rng_mended", reason="random is seeded too"),
    Sample(name="seed_effect_mended", reason="build(seed) goes by its seed"),
    Sample(name="thread_count_mended", reason="the program fixes the number of threads"),
    Sample(name="thread_timing_mended", reason="map gives the shards in their order"),
    Sample(name="three_causes_mended", reason="all three mends together"),
    Sample(name="torch_rng_mended", reason="PyTorch is seeded too"),
    Sample(name="uninitialized_memory_mended", reason="the padding is zero"),
    Sample(name="worker_order_mended", reason="batches come in order"),
    Sample(name="worker_seed_mended", reason="each sample makes a generator of its own"),
    Sample(name="worker_start_method_mended", reason="the dataset holds the vocabulary"),
)
