"""Reading the state of random generators, without drawing from them and cheaply enough for every step.

The ambient ones (`random`, legacy NumPy, torch, each CUDA device) are read at every batch. `random.getstate` and the
`state` of NumPy's build hundreds of Python integers, which takes 15 and 40 microseconds, so their memory is read
instead where it is laid out as expected.
"""

from __future__ import annotations

import ctypes
import random
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xxhash

from repro_audit.torch_internals.generators import GENERATOR_ADDRESS

if TYPE_CHECKING:
    import numpy.typing as npt

_WORDS = 624
_MT_BYTES = 4 * _WORDS + 4
"""A Mersenne Twister: its words and its place among them."""

_digest = xxhash.xxh3_128_digest


def ambient() -> Iterator[tuple[str, bytes]]:
    """Name and digest of each ambient generator's state; CUDA devices only once the program has started CUDA."""
    yield "rng.python", python_digest(AMBIENT_PYTHON)
    yield "rng.numpy", ambient_numpy()
    yield "rng.torch", torch_digest(torch.default_generator)
    if torch.cuda.is_initialized() and not torch.cuda.is_current_stream_capturing():
        for index, generator in enumerate(torch.cuda.default_generators):
            yield f"rng.cuda:{index}", torch_digest(generator)


def ambient_generators() -> dict[str, Any]:
    """The ambient generators of a DataLoader worker, which has no CUDA."""
    return {
        "ambient python": AMBIENT_PYTHON,
        "ambient numpy": np.random.mtrand._rand,
        "ambient torch": torch.default_generator,
    }


def torch_digest(generator: torch.Generator) -> bytes:
    """Digest of a torch generator's state."""
    state = generator.get_state()  # a copy of ours, on the CPU, contiguous
    return _digest(ctypes.string_at(state.data_ptr(), state.numel()))


# random.Random

AMBIENT_PYTHON: random.Random = random._inst
"""The generator behind the functions of `random`."""
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


def ambient_numpy() -> bytes:
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


def digest_of(generator: Any) -> bytes:
    """Digest of the state of any generator that `stored.is_generator` accepts."""
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


def _twists_to(
    start: npt.NDArray[np.uint32], now: npt.NDArray[np.uint32], most: int = _MOST_TWISTS
) -> bool:
    """Whether a Mersenne Twister gets from one set of words to the other; all that are in use go alike."""
    clone = np.random.MT19937(0)
    clone.state = {"bit_generator": "MT19937", "state": {"key": start, "pos": _WORDS}}
    wanted = np.asarray(now, dtype=np.uint32).tobytes()
    read: Callable[[], bytes] = partial(_numpy_words, clone)
    if _NUMPY_AS_EXPECTED:
        memory = (ctypes.c_char * (4 * _WORDS)).from_address(clone.ctypes.state_address)
        read = lambda: memory.raw  # noqa: E731 - half the cost of a function that looks for the address
    for _ in range(most if _NUMPY_AS_EXPECTED else most // 10):
        if read() == wanted:
            return True
        clone.random_raw(_WORDS, output=False)
    return False


# Positions
#
# The same questions for every line and every movement in a detailed trace, where they must cost microseconds.

_FEW_TWISTS = 16
"""Ten thousand draws; further on a position can't be told from one that was set."""
_TORCH_WORDS = 24
"""Where torch's state has its words, as 64-bit numbers: after the seed, `left`, `seeded` and `next`."""
_CUDA_BYTES = 16
"""A state of Philox on a device: the seed and the offset."""
_PCG_BYTES = 32


def token(generator: Any) -> Callable[[Any], object]:
    """A function of the generator whose result changes when the state does, and costs as little as can be.

    It is good while the generator lives. A normal deviate that NumPy's legacy generator holds back is no part of it.
    """
    if isinstance(generator, random.Random):
        return _python_token(generator)
    if isinstance(generator, torch.Generator):
        return _torch_token(generator) if generator.device.type == "cpu" else _device_token
    bits = numpy_bits(generator)
    if type(bits) is np.random.MT19937 and _NUMPY_AS_EXPECTED:
        memory = (ctypes.c_char * _MT_BYTES).from_address(bits.ctypes.state_address)
        return lambda _: _digest(memory)
    if type(bits) in _PCG and _PCG_AS_EXPECTED:
        return _pcg_token(bits)
    return numpy_digest


def ambient_numpy_token(generator: np.random.RandomState) -> object:
    """As `token`, of the legacy generator, whose bit generator a program may exchange."""
    bits = generator._bit_generator
    if bits is not _numpy_bits_seen[0]:
        _numpy_bits_seen[:] = [bits, token(bits)]
    return _numpy_bits_seen[1](bits)


_numpy_bits_seen: list[Any] = [None, None]


def _python_token(generator: random.Random) -> Callable[[Any], object]:
    if not _PYTHON_AS_EXPECTED:
        return python_digest
    memory = (ctypes.c_char * _MT_BYTES).from_address(id(generator) + _PYTHON_OFFSET)
    return lambda alive: (_digest(memory), vars(alive).get("gauss_next"))


def _torch_token(generator: torch.Generator) -> Callable[[Any], object]:
    if not _TORCH_OFFSET:
        return torch_digest
    memory = _torch_memory(generator, _TORCH_OFFSET)
    return lambda _: _digest(memory)


def _torch_memory(generator: torch.Generator, offset: int) -> ctypes.Array[ctypes.c_char]:
    # ATen/CPUGeneratorImpl.h: a `mt19937` (seed, left, seeded, next, words) and two normal deviates that may be held
    # back, where `get_state` allocates five kilobytes.
    size = _TORCH_HEAD + 4 * _WORDS + _TORCH_NORMALS
    return (ctypes.c_char * size).from_address(_address(generator) + offset - _TORCH_HEAD)


def _address(generator: torch.Generator) -> int:
    address: int = GENERATOR_ADDRESS.of(generator)
    return address


_TORCH_HEAD, _TORCH_NORMALS = 12, 24


def _find_torch_words() -> int:
    """Where in a CPU generator's memory its words are, tried on one of our own; 0 where it is not as expected.

    No kernel runs: a process that is to be forked must not have run one.
    """
    sample = torch.Generator()
    sample.manual_seed(7)
    words = _torch_position(sample).words
    offset = ctypes.string_at(_address(sample), 256).find(words[:16])  # it is ten times as large
    if offset < _TORCH_HEAD or words not in _torch_memory(sample, offset).raw:
        return 0
    memory = _torch_memory(sample, offset)
    seen = {memory.raw}
    # `next`, then whether a deviate of one and of the other size is held back (CPUGeneratorImplState).
    for place in (16, 5040, 5052):
        state = sample.get_state()
        ctypes.c_uint8.from_address(state.data_ptr() + place).value ^= 1
        sample.set_state(state)
        seen.add(memory.raw)
    return offset if len(seen) == 4 else 0  # noqa: PLR2004 - the first, and three changes


def _device_token(generator: torch.Generator) -> object:
    """Of a state that can't be read while a graph is captured: nothing, which changes when the capture ends."""
    return b"" if torch.cuda.is_current_stream_capturing() else torch_digest(generator)


_PCG = (np.random.PCG64, np.random.PCG64DXSM)


def _pcg_token(bits: Any) -> Callable[[Any], tuple[bytes, bytes]]:
    # numpy/random/src/pcg64/pcg64.h: a pointer to the state and the increment, then half of a word that was drawn.
    address = bits.ctypes.state_address
    state = ctypes.c_void_p.from_address(address).value or 0
    inner = (ctypes.c_char * _PCG_BYTES).from_address(state)
    rest = (ctypes.c_char * 8).from_address(address + ctypes.sizeof(ctypes.c_void_p))
    return lambda _: (inner.raw, rest.raw)


def _pcg_is_as_expected() -> bool:
    for kind in _PCG:
        sample = kind(0)
        read = _pcg_token(sample)
        for draws in (0, 3):
            sample.random_raw(draws + 1)
            state = sample.state["state"]
            inner, _ = read(None)
            if inner != b"".join(state[key].to_bytes(16, "little") for key in ("state", "inc")):
                return False
        before = read(None)
        np.random.Generator(sample).integers(9, dtype=np.uint32)  # leaves half a word
        if read(None)[1] == before[1]:
            return False
    return True


_PCG_AS_EXPECTED = _pcg_is_as_expected()


@dataclass(frozen=True, slots=True)
class Position:
    """Where a generator is in its stream, as far as its state says."""

    stream: bytes = b""
    """What drawing keeps, where there is such a thing."""
    words: bytes = b""
    """Of a Mersenne Twister."""
    place: int | None = None
    """Grows with each draw, as long as the rest stays; None where that can't be told."""

    @classmethod
    def of(cls, generator: Any) -> Position:
        """The position of a generator of any kind; of None, for one that is gone, an empty one."""
        if isinstance(generator, torch.Generator):
            return _torch_position(generator)
        if isinstance(generator, random.Random):
            return _python_position(generator)
        return cls() if generator is None else _numpy_position(numpy_bits(generator))

    def follows(self, before: Position) -> bool | None:
        """Whether drawing alone leads here from another position; None where that can't be told."""
        if self.stream != before.stream or len(self.words) != len(before.words):
            return False
        if self.words != before.words:
            start, now = (np.frombuffer(each.words, np.uint32) for each in (before, self))
            return _twists_to(start, now, _FEW_TWISTS) or None
        if self.place is None or before.place is None:
            return None
        return self.place >= before.place


def _python_position(generator: random.Random) -> Position:
    if _PYTHON_AS_EXPECTED:
        memory = _python_memory(generator)
        return Position(words=memory[4:], place=int.from_bytes(memory[:4], sys.byteorder))
    words = random.Random.getstate(generator)[1]
    return Position(words=_python_words(generator).tobytes(), place=int(words[-1]))


def _torch_position(generator: torch.Generator) -> Position:
    if generator.device.type != "cpu" and torch.cuda.is_current_stream_capturing():
        return Position()
    state = generator.get_state()
    data = ctypes.string_at(state.data_ptr(), state.numel())
    if len(data) == _CUDA_BYTES:
        return Position(stream=data[:8], place=int.from_bytes(data[8:], "little"))
    words = data[_TORCH_WORDS : _TORCH_WORDS + 8 * _WORDS]
    if len(words) < 8 * _WORDS:
        return Position()
    place = int.from_bytes(data[16:24], "little")
    return Position(words=np.frombuffer(words, np.uint64).astype(np.uint32).tobytes(), place=place)


def _numpy_position(bits: Any) -> Position:
    if type(bits) is np.random.MT19937 and _NUMPY_AS_EXPECTED:
        memory = _numpy_memory(bits)
        return Position(words=memory[:-4], place=int.from_bytes(memory[-4:], sys.byteorder))
    state = bits.state
    kind, inner = state["bit_generator"], state["state"]
    if kind == "MT19937":
        return Position(
            words=np.asarray(inner["key"], np.uint32).tobytes(), place=int(inner["pos"])
        )
    if kind in {"PCG64", "PCG64DXSM"}:
        return Position(stream=str(inner["inc"]).encode())
    return Position(stream=inner["key"].tobytes()) if kind == "Philox" else Position()


_TORCH_OFFSET = _find_torch_words()
