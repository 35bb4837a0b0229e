"""Reading the state of random generators, without drawing from them and cheaply enough for every step.

The ambient ones (`random`, legacy NumPy, torch, each CUDA device) are read at every batch. `random.getstate` and the
`state` of NumPy's build hundreds of Python integers, which takes 15 and 40 microseconds, so their memory is read
instead where it is laid out as expected.
"""

from __future__ import annotations

import ctypes
import random
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xxhash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy.typing as npt

_WORDS = 624
_MT_BYTES = 4 * _WORDS + 4
"""A Mersenne Twister: its words and its place among them."""

_digest = xxhash.xxh3_128_digest


def ambient() -> Iterator[tuple[str, bytes]]:
    """Name and digest of each ambient generator's state; CUDA devices only once the program has started CUDA."""
    yield "rng.python", python_digest(_AMBIENT_PYTHON)
    yield "rng.numpy", _ambient_numpy()
    yield "rng.torch", torch_digest(torch.default_generator)
    if torch.cuda.is_initialized() and not torch.cuda.is_current_stream_capturing():
        for index, generator in enumerate(torch.cuda.default_generators):
            yield f"rng.cuda:{index}", torch_digest(generator)


def ambient_generators() -> dict[str, Any]:
    """The ambient generators of a DataLoader worker, which has no CUDA."""
    return {
        "ambient python": _AMBIENT_PYTHON,
        "ambient numpy": np.random.mtrand._rand,
        "ambient torch": torch.default_generator,
    }


def torch_digest(generator: torch.Generator) -> bytes:
    """Digest of a torch generator's state."""
    state = generator.get_state()  # a copy of ours, on the CPU, contiguous
    return _digest(ctypes.string_at(state.data_ptr(), state.numel()))


# random.Random

_AMBIENT_PYTHON: random.Random = random._inst
_PYTHON_OFFSET = object.__basicsize__


def python_digest(generator: random.Random) -> bytes:
    """Digest of the state of a `random.Random`."""
    gauss = repr(vars(generator).get("gauss_next")).encode()
    if _PYTHON_AS_EXPECTED:
        return _digest(_python_memory(generator) + gauss)
    words = random.Random.getstate(generator)[1]
    return _digest(struct.pack(f"={len(words)}L", *words) + gauss)


def _python_memory(generator: random.Random) -> bytes:
    # CPython's RandomObject: the object's head, `int index`, `uint32_t state[624]`.
    return ctypes.string_at(id(generator) + _PYTHON_OFFSET, _MT_BYTES)


def _python_is_as_expected() -> bool:
    """Whether this interpreter lays out a generator as `_python_memory` reads it, tried on one of our own."""
    sample = random.Random(0)
    if type(sample).__basicsize__ < _PYTHON_OFFSET + _MT_BYTES:
        return False
    for draws in (0, 3):
        sample.getrandbits(32 * draws + 1)
        words = sample.getstate()[1]
        if _python_memory(sample) != struct.pack(f"=l{_WORDS}L", words[-1], *words[:-1]):
            return False
    return True


_PYTHON_AS_EXPECTED = _python_is_as_expected()


# NumPy


def _ambient_numpy() -> bytes:
    """Digest of NumPy's legacy generator, but for a normal deviate that it may hold back."""
    bits = np.random.mtrand.get_bit_generator()
    if type(bits) is np.random.MT19937 and _NUMPY_AS_EXPECTED:
        return _digest(_numpy_memory(bits))
    return numpy_digest(bits)


def _numpy_memory(bits: np.random.MT19937) -> bytes:
    # numpy/random/src/mt19937/mt19937.h: `uint32_t key[624]; int pos`.
    return ctypes.string_at(bits.ctypes.state_address, _MT_BYTES)


def _numpy_words(bits: np.random.MT19937) -> bytes:
    if _NUMPY_AS_EXPECTED:
        return _numpy_memory(bits)[:-4]
    return np.asarray(bits.state["state"]["key"], dtype=np.uint32).tobytes()


def _numpy_is_as_expected() -> bool:
    sample = np.random.MT19937(0)
    for draws in (0, 3):
        sample.random_raw(draws + 1)
        state = sample.state["state"]
        words = np.asarray(state["key"], dtype=np.uint32).tobytes()
        if _numpy_memory(sample) != words + struct.pack("=i", state["pos"]):
            return False
    return True


_NUMPY_AS_EXPECTED = _numpy_is_as_expected()


def numpy_digest(generator: Any) -> bytes:
    """Digest of a NumPy `Generator`, `RandomState` or bit generator."""
    if isinstance(generator, np.random.RandomState):
        return _digest(b"".join(_flat(generator.get_state(legacy=False))))
    return _digest(b"".join(_flat(numpy_bits(generator).state)))


def numpy_bits(generator: Any) -> Any:
    """The bit generator beneath a NumPy generator of any kind."""
    if isinstance(generator, np.random.RandomState):
        return generator._bit_generator
    return getattr(generator, "bit_generator", generator)


def _flat(state: Any) -> Iterator[bytes]:
    """A state's parts as bytes, in the order that NumPy gives them."""
    if isinstance(state, dict):
        for key, value in state.items():
            yield key.encode()
            yield from _flat(value)
    else:
        yield (
            state.tobytes() if isinstance(state, (np.ndarray, np.generic)) else repr(state).encode()
        )


# Any of them

KINDS = (
    torch.Generator,
    np.random.Generator,
    np.random.RandomState,
    np.random.BitGenerator,
    random.Random,
)
"""What counts as a generator where an object of the program's owns one."""


def is_generator(value: object) -> bool:
    """Whether a value is a generator with a state; `SystemRandom` has none."""
    return isinstance(value, KINDS) and not isinstance(value, random.SystemRandom)


def digest_of(generator: Any) -> bytes:
    """Digest of the state of any generator that `is_generator` accepts."""
    if isinstance(generator, torch.Generator):
        return torch_digest(generator)
    if isinstance(generator, random.Random):
        return python_digest(generator)
    return numpy_digest(generator)


# Streams
#
# Two workers may start from equal states and still draw different numbers, where each sample reseeds the generator that
# it draws from. So it is asked whether a state follows from the one at the start by drawing alone.

_MOST_TWISTS = 20_000
"""Twelve million draws, less than a tenth of a second; further on it counts as reseeded."""


def begin(generator: Any) -> Callable[[], bool | None]:
    """Remember a generator as it is.

    Returns:
        A function that tells whether the state has been reached by drawing: False after a reseeding, None where the
        generator does not let it be told.
    """
    if isinstance(generator, torch.Generator):
        seed = generator.initial_seed()
        return lambda: generator.initial_seed() == seed
    if isinstance(generator, random.Random):
        start = _python_words(generator)
        return lambda: _twists_to(start, _python_words(generator))
    bits = numpy_bits(generator)
    state = bits.state
    return lambda: _numpy_follows(state, bits.state)


def _python_words(generator: random.Random) -> npt.NDArray[np.uint32]:
    return np.array(random.Random.getstate(generator)[1][:-1], dtype=np.uint32)


def _numpy_follows(start: Mapping[str, Any], now: Mapping[str, Any]) -> bool | None:
    kind, before, after = start["bit_generator"], start["state"], now["state"]
    if kind != now["bit_generator"]:
        return False
    if kind in {"PCG64", "PCG64DXSM"}:
        # Which of the streams it is; it follows from the seed, and drawing keeps it.
        return bool(before["inc"] == after["inc"])
    if kind == "Philox":
        return bool((before["key"] == after["key"]).all())
    return _twists_to(before["key"], after["key"]) if kind == "MT19937" else None


def _twists_to(start: npt.NDArray[np.uint32], now: npt.NDArray[np.uint32]) -> bool:
    """Whether a Mersenne Twister gets from one set of words to the other; Python's and NumPy's are the same."""
    clone = np.random.MT19937(0)
    clone.state = {"bit_generator": "MT19937", "state": {"key": start, "pos": _WORDS}}
    wanted = np.asarray(now, dtype=np.uint32).tobytes()
    for _ in range(_MOST_TWISTS if _NUMPY_AS_EXPECTED else _MOST_TWISTS // 10):
        if _numpy_words(clone) == wanted:
            return True
        clone.random_raw(_WORDS, output=False)
    return False
