"""What generators this process has, as facts: engine, state, seed, position, and who seeds each.

Looking changes nothing: no draw, no seeding, and no device is started.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from repro_audit.rng.engines import MT_WORDS
from repro_audit.torch_internals.generators import MPS_GENERATOR

MT_BYTES = 4 * (MT_WORDS + 1)
"""624 words and the position in them, as `random` and NumPy keep them."""
PCG64_BYTES = 32
"""A state and an increment of 128 bits each."""
PHILOX_BYTES = 16
"""A seed of 64 bits and an offset of 64 bits, as PyTorch's CUDA generators save them."""
UNKNOWN_POSITION = "not seen"

_OS = "the operating system's entropy"
_TORCH_WORKERS = "seeded with base_seed + worker_id"


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorFacts:
    """One generator of this process or of a device. The texts are sentences for a reader."""

    name: str
    """Such as `random`, `numpy.random`, `torch cpu`, `torch cuda:0`."""
    library: str
    engine: str
    status: str
    """`started`, `not started` (it doesn't exist yet), `no device`, or `made by each call`."""
    state_bytes: int
    """Bytes of its state; where it isn't started, of the state that it will have."""
    seed: int | None
    """What it was last seeded with; None where that isn't kept, or it isn't started."""
    position: str
    """How far it is in its stream."""
    seeded_by: str
    """The functions that seed it."""
    at_start: str
    """What it starts from unless the program seeds it."""
    seed_everything: bool
    """`repro_audit.rng.seed_everything` seeds it."""
    workers: str
    """What a DataLoader worker has of it."""
    note: str = ""
    """What else a reader should know, or an empty string."""


def generators() -> list[GeneratorFacts]:
    """Every generator that this process draws from by default, and that of each device.

    Sources: https://docs.pytorch.org/docs/stable/notes/randomness.html,
        https://numpy.org/doc/stable/reference/random/bit_generators/index.html,
        https://docs.python.org/3/library/random.html
    """
    return [
        _python(),
        _numpy_legacy(),
        _numpy_default(),
        _torch_cpu(),
        *_torch_cuda(),
        *_torch_mps(),
    ]


def _python() -> GeneratorFacts:
    *_, used = random.getstate()[1]
    return GeneratorFacts(
        name="random",
        library="Python",
        engine="MT19937",
        status="started",
        state_bytes=MT_BYTES,
        seed=None,
        position=_words_used(used),
        seeded_by="random.seed",
        at_start=_OS,
        seed_everything=True,
        workers=_TORCH_WORKERS,
    )


def _numpy_legacy() -> GeneratorFacts:
    import numpy as np

    state = dict(np.random.get_state(legacy=False))
    kind = str(state["bit_generator"])
    used = state["state"].get("pos") if kind == "MT19937" else None
    return GeneratorFacts(
        name="numpy.random",
        library="NumPy",
        engine=kind,
        status="started",
        state_bytes=MT_BYTES if kind == "MT19937" else _bytes_of(state["state"]),
        seed=None,
        position=UNKNOWN_POSITION if used is None else _words_used(used),
        seeded_by="numpy.random.seed",
        at_start=_OS,
        seed_everything=True,
        workers="seeded from base_seed and worker_id, mixed, since PyTorch 1.9; "
        "before that every worker had the same copy",
    )


def _numpy_default() -> GeneratorFacts:
    import numpy as np

    kind = type(np.random.default_rng(0).bit_generator).__name__
    return GeneratorFacts(
        name="default_rng()",
        library="NumPy",
        engine=kind,
        status="made by each call",
        state_bytes=PCG64_BYTES,
        seed=None,
        position="each has its own",
        seeded_by="its argument: numpy.random.default_rng(seed)",
        at_start=f"{_OS}; kept as bit_generator.seed_seq.entropy",
        seed_everything=False,
        workers="one that the dataset owns is copied to every worker in the same state",
    )


def _torch_cpu() -> GeneratorFacts:
    import torch

    state = torch.get_rng_state().numpy().tobytes()
    return GeneratorFacts(
        name="torch cpu",
        library="PyTorch",
        engine="mt19937",
        status="started",
        state_bytes=len(state),
        seed=torch.initial_seed(),
        position=_torch_position(state),
        seeded_by="torch.manual_seed, torch.seed; of the seed, 32 bits count",
        at_start=f"{_OS}; a torch.Generator() of one's own starts from a constant",
        seed_everything=True,
        workers=f"{_TORCH_WORKERS}; base_seed is drawn from this one, or the loader's own, each epoch",
        note="torch.manual_seed(s) and numpy.random.seed(s) start the same words of 32 bits",
    )


def _torch_cuda() -> Iterator[GeneratorFacts]:
    """One for each device; a device has none until CUDA starts, and looking does not start it."""
    import torch

    devices = torch.cuda.device_count()
    if not devices:
        yield _cuda("torch cuda", "no device", None)
    started = torch.cuda.is_initialized()
    for index in range(devices):
        state = torch.cuda.get_rng_state(index).numpy().tobytes() if started else None
        yield _cuda(f"torch cuda:{index}", "started" if started else "not started", state)


def _cuda(name: str, status: str, state: bytes | None) -> GeneratorFacts:
    seed, offset = struct.unpack("<QQ", state[-PHILOX_BYTES:]) if state else (None, None)
    return GeneratorFacts(
        name=name,
        library="PyTorch",
        engine="Philox4x32-10",
        status=status,
        state_bytes=len(state) if state else PHILOX_BYTES,
        seed=seed,
        position=f"offset {offset}" if state else "none: it is made lazily, when CUDA starts",
        seeded_by="torch.manual_seed, torch.cuda.manual_seed_all; before CUDA starts they wait for it",
        at_start=_OS,
        seed_everything=True,
        workers="none: a forked worker can not use CUDA",
    )


def _torch_mps() -> Iterator[GeneratorFacts]:
    import torch

    if not torch.backends.mps.is_available():
        return
    generator = MPS_GENERATOR.get()()
    yield GeneratorFacts(
        name="torch mps",
        library="PyTorch",
        engine="Philox4x32-10",
        status="started",
        state_bytes=generator.get_state().numel(),
        seed=generator.initial_seed(),
        position=UNKNOWN_POSITION,
        seeded_by="torch.manual_seed, torch.mps.manual_seed",
        at_start=_OS,
        seed_everything=True,
        workers="not seen",
    )


def _torch_position(state: bytes) -> str:
    """From the layout that PyTorch saves: seed (64 bits), words left and a flag (32 each), the next word (64)."""
    left, _seeded = struct.unpack_from("<ii", state, 8)
    # The words left count the one that starts the next block.
    return _words_used(MT_WORDS + 1 - left) if 1 <= left <= MT_WORDS else UNKNOWN_POSITION


def _words_used(used: int) -> str:
    return f"{used} of {MT_WORDS} words of the block used"


def _bytes_of(state: dict[str, object]) -> int:
    """Bytes of another bit generator's state: arrays as they are, numbers as words of 128 bits."""
    return sum(getattr(part, "nbytes", 16) for part in state.values())
