"""Which engines the libraries use, proven from their outputs: rebuild the state, and predict what comes next, exactly.

Copies draw; the process's own generators stay as they are.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from repro_audit.rng.engines import MT_WORDS, MersenneTwister, pcg64, philox_of_thread
from repro_audit.rng.lcg.generator import Lcg
from repro_audit.rng.lcg.recovery import recover

PREDICTED = 2000
"""Outputs that are predicted after those that the state was rebuilt from."""
LCG_OUTPUTS = 64
"""Outputs that the search for an LCG gets."""
CUDA_THREADS = 256
"""Threads of a block: each puts out its first word for one element."""
CONTROL = Lcg(multiplier=1664525, increment=1013904223, modulus=2**32)
"""An LCG (Knuth and Lewis; Numerical Recipes) that the same tests must tell from a Mersenne Twister."""
CONTROL_SEED = 20_240_601


@dataclass(frozen=True, slots=True, kw_only=True)
class Identification:
    """What one generator's outputs show."""

    name: str
    claim: str
    """The engine that was tested for."""
    exercised: bool
    """Outputs were drawn and tested; where False, `how` says why not."""
    how: str
    """What was predicted from what."""
    right: int = 0
    """Outputs predicted exactly."""
    predicted: int = 0
    """Outputs that were to be predicted."""
    lcg: str = ""
    """What the search for an LCG in the same outputs found."""
    control: bool = False
    """Something else than what was tested for: here the prediction must fail."""

    @property
    def proven(self) -> bool:
        """Every prediction was right, and there were some."""
        return self.exercised and 0 < self.predicted == self.right


def identify() -> list[Identification]:
    """Prove the engines of Python, NumPy, PyTorch, and of a CUDA device where there is one, which is started then.

    The last entry is a control: a real LCG, in which the same search finds the LCG, and where the prediction as a
    Mersenne Twister fails.
    """
    count = MT_WORDS + PREDICTED
    return [
        as_mersenne_twister("torch cpu", torch_words(count)),
        _numpy_legacy(count),
        as_mersenne_twister("random", python_words(count)),
        _numpy_default(),
        _cuda(),
        replace(
            as_mersenne_twister("an LCG, as a control", CONTROL.outputs(CONTROL_SEED, count)),
            control=True,
        ),
    ]


def as_mersenne_twister(name: str, words: Sequence[int]) -> Identification:
    """Rebuild a state from the first 624 words of 32 bits, predict the rest, and look for an LCG in the same words."""
    twin = MersenneTwister.after(words[:MT_WORDS])
    rest = words[MT_WORDS:]
    return Identification(
        name=name,
        claim="MT19937",
        exercised=True,
        how=f"from {MT_WORDS} outputs of 32 bits, untempered",
        right=sum(twin.next_word() == word for word in rest),
        predicted=len(rest),
        lcg=_lcg_in(words),
    )


def _lcg_in(outputs: Sequence[int]) -> str:
    """What LCG recovery makes of the outputs, in words."""
    found = recover(outputs[:LCG_OUTPUTS])
    if found.lcg is None:
        return f"not an LCG: {found.reason.partition(':')[0]} its first {LCG_OUTPUTS} outputs"
    return f"an LCG: A={found.lcg.multiplier} B={found.lcg.increment} M={found.lcg.modulus}"


def torch_words(count: int) -> list[int]:
    """The next `count` words of 32 bits of PyTorch's CPU generator, from a copy of it.

    `random_` over all of int64 keeps every bit: each number is two words, the first one on top.
    """
    import torch

    copy = torch.Generator()
    copy.set_state(torch.get_rng_state())
    lowest = torch.iinfo(torch.int64).min
    numbers = torch.empty((count + 1) // 2, dtype=torch.int64)
    numbers.random_(lowest, None, generator=copy)
    halves = [half for number in numbers.tolist() for half in divmod(number % 2**64, 2**32)]
    return halves[:count]


def python_words(count: int) -> list[int]:
    """The next `count` words of 32 bits of Python's `random`, from a copy of it."""
    copy = random.Random(0)
    copy.setstate(random.getstate())
    return [copy.getrandbits(32) for _ in range(count)]


def numpy_words(count: int) -> list[int]:
    """The next `count` words of 32 bits of NumPy's legacy generator, from a copy of it."""
    import numpy as np

    state: dict[str, Any] = dict(np.random.get_state(legacy=False))
    copy = np.random.RandomState(getattr(np.random, state["bit_generator"])())
    copy.set_state(state)
    return [int(word) for word in copy.randint(0, 2**32, size=count, dtype=np.uint32)]


def _numpy_legacy(count: int) -> Identification:
    import numpy as np

    kind = np.random.get_state(legacy=False)["bit_generator"]
    if kind != "MT19937":
        return _not_tried("numpy.random", "MT19937", f"this process has put {kind} in its place")
    return as_mersenne_twister("numpy.random", numpy_words(count))


def _numpy_default() -> Identification:
    import numpy as np

    generator = np.random.default_rng(CONTROL_SEED)
    state: dict[str, Any] = dict(generator.bit_generator.state)
    if state["bit_generator"] != "PCG64":
        why = f"this NumPy has {state['bit_generator']} in its place"
        return _not_tried("default_rng()", "PCG64", why)
    outputs = [int(word) for word in generator.integers(0, 2**64, size=PREDICTED, dtype=np.uint64)]
    expected = islice(pcg64(state["state"]["state"], state["state"]["inc"]), PREDICTED)
    return Identification(
        name="default_rng()",
        claim="PCG64",
        exercised=True,
        how="from its state of 2 x 128 bits: an LCG modulo 2**128 that is folded and rotated",
        right=sum(a == b for a, b in zip(outputs, expected, strict=True)),
        predicted=PREDICTED,
        lcg=_lcg_in(outputs),
    )


def _cuda() -> Identification:
    import torch

    name, claim = "torch cuda", "Philox4x32-10"
    if not torch.cuda.is_available():
        return _not_tried(name, claim, "no CUDA device")
    try:
        outputs, expected = _cuda_words()
    except (RuntimeError, AssertionError) as error:  # what PyTorch raises where CUDA can not start
        return _not_tried(name, claim, str(error).partition("\n")[0])
    return Identification(
        name=name,
        claim=claim,
        exercised=True,
        how="from its seed, its offset and the thread's number",
        right=sum(a == b for a, b in zip(outputs, expected, strict=True)),
        predicted=len(outputs),
        lcg=_lcg_in(outputs),
    )


def _not_tried(name: str, claim: str, why: str) -> Identification:
    return Identification(name=name, claim=claim, exercised=False, how=f"not tried: {why}")


def _cuda_words() -> tuple[list[int], list[int]]:
    """Outputs of a generator of its own on the device, and what Philox makes of its seed and offset.

    Sources: https://github.com/pytorch/pytorch/blob/v2.13.0/aten/src/ATen/native/cuda/DistributionTemplates.h
    """
    import torch

    generator = torch.Generator("cuda").manual_seed(CONTROL_SEED)
    outputs: list[int] = []
    expected: list[int] = []
    while len(outputs) < PREDICTED:
        seed, offset = struct.unpack("<QQ", generator.get_state().numpy().tobytes()[-16:])
        numbers = torch.empty(CUDA_THREADS, dtype=torch.int32, device="cuda")
        outputs.extend(numbers.random_(generator=generator).tolist())
        # One block, an element a thread, and `random_` on int32 takes its first word modulo 2**31.
        expected.extend(
            philox_of_thread(seed, thread, offset)[0] % 2**31 for thread in range(CUDA_THREADS)
        )
    return outputs, expected
