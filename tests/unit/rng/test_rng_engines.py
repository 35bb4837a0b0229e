"""The engines in plain integers against published vectors, and against the libraries that use them."""

from __future__ import annotations

import random
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from repro_audit.rng import identification
from repro_audit.rng.engines import (
    MT_WORDS,
    MersenneTwister,
    pcg64,
    philox4x32,
    philox_of_thread,
    temper,
    untemper,
)
from repro_audit.rng.identification import (
    CUDA_THREADS,
    Identification,
    as_mersenne_twister,
    identify,
    numpy_words,
    python_words,
    torch_words,
)
from repro_audit.rng.seeding import fork_rng, seed_everything, snapshot

WORDS = st.integers(0, 2**32 - 1)
SEEDS = st.integers(0, 2**32 - 1)


@given(WORDS)
def test_untempering_undoes_tempering(word: int) -> None:
    assert untemper(temper(word)) == word
    assert temper(untemper(word)) == word


# The known answers of Random123 1.14.0, tests/kat_vectors: counter, key, outputs.
# https://github.com/DEShawResearch/random123/blob/v1.14.0/tests/kat_vectors
@pytest.mark.parametrize(
    "line",
    [
        "00000000 00000000 00000000 00000000 00000000 00000000   6627e8d5 e169c58d bc57ac4c 9b00dbd8",
        "ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff   408f276d 41c83b0e a20bc7c6 6d5451fd",
        "243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0   d16cfe09 94fdcceb 5001e420 24126ea1",
    ],
)
def test_philox_gives_the_known_answers(line: str) -> None:
    c0, c1, c2, c3, k0, k1, *expected = (int(word, 16) for word in line.split())
    assert philox4x32((c0, c1, c2, c3), (k0, k1)) == tuple(expected)
    # A round too few is noticed.
    assert philox4x32((c0, c1, c2, c3), (k0, k1), rounds=9) != tuple(expected)


def test_a_thread_is_a_counter() -> None:
    seed, thread, offset = (7 << 32) + 3, (5 << 32) + 9, 4 * ((2 << 32) + 6)
    assert philox_of_thread(seed, thread, offset) == philox4x32((6, 2, 9, 5), (3, 7))


def seeded(seed: int) -> list[int]:
    """The state that `init_genrand` makes of 32 bits; `np.random.seed` and `torch.manual_seed` do so too."""
    state = [seed % 2**32]
    for index in range(1, MT_WORDS):
        last = state[-1]
        state.append((1812433253 * (last ^ (last >> 30)) + index) % 2**32)
    return state


@given(SEEDS)
def test_a_seeded_twister_is_that_of_numpy_and_of_torch(seed: int) -> None:
    with fork_rng():
        seed_everything(seed, cudnn_flags=False)
        twin = MersenneTwister(seeded(seed))
        expected = [twin.next_word() for _ in range(10)]
        assert numpy_words(10) == torch_words(10) == expected
        torch.manual_seed(seed + 2**32)
        assert torch_words(10) == expected


@pytest.mark.parametrize("skipped", [0, 1, 311, 623, 624, 1000])
@pytest.mark.parametrize("words", [torch_words, numpy_words, python_words])
def test_624_outputs_predict_all_that_follow(words: Any, skipped: int) -> None:
    drawn = words(skipped + MT_WORDS + 1500)[skipped:]
    found = as_mersenne_twister("", drawn)
    assert found.proven
    assert (found.right, found.predicted) == (1500, 1500)
    assert found.lcg.startswith("not an LCG")


def test_one_bit_that_differs_is_noticed() -> None:
    drawn = python_words(MT_WORDS + 1000)
    drawn[-1] ^= 1
    assert not as_mersenne_twister("", drawn).proven
    drawn[-1] ^= 1
    drawn[300] ^= 1
    assert not as_mersenne_twister("", drawn).proven


def test_the_words_are_those_that_the_libraries_draw_next() -> None:
    with fork_rng():
        seed_everything(3, cudnn_flags=False)
        random.random()
        np.random.rand()
        torch.rand(1)
        expected = python_words(4), numpy_words(4), torch_words(4)
        assert [random.getrandbits(32) for _ in range(4)] == expected[0]
        assert np.random.randint(0, 2**32, size=4, dtype=np.uint32).tolist() == expected[1]
        # A float32 in [0, 1) is the lowest 24 bits of a word.
        scaled = [(word & (2**24 - 1)) / 2**24 for word in expected[2]]
        assert torch.rand(4).tolist() == scaled


@given(SEEDS)
def test_pcg64_is_that_of_default_rng(seed: int) -> None:
    generator = np.random.default_rng(seed)
    state: dict[str, Any] = dict(generator.bit_generator.state)
    drawn = generator.integers(0, 2**64, size=50, dtype=np.uint64).tolist()
    start, increment = state["state"]["state"], state["state"]["inc"]
    assert list(islice(pcg64(start, increment), 50)) == drawn
    # Another stream is another one.
    assert list(islice(pcg64(start, increment ^ 2), 50)) != drawn


@pytest.fixture(scope="module")
def found() -> dict[str, Identification]:
    return {one.name: one for one in identify()}


def test_every_engine_is_proven_and_the_control_is_not(found: dict[str, Identification]) -> None:
    for name in ("torch cpu", "numpy.random", "random", "default_rng()"):
        assert found[name].proven
        assert found[name].predicted >= 1000
        assert found[name].lcg.startswith("not an LCG")
    control = found["an LCG, as a control"]
    assert control.control
    assert not control.proven
    assert control.lcg == "an LCG: A=1664525 B=1013904223 M=4294967296"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_nothing_is_said_of_cuda(found: dict[str, Identification]) -> None:
    assert found["torch cuda"].how == "not tried: no CUDA device"
    assert not found["torch cuda"].proven


@pytest.mark.skipif(torch.backends.cuda.is_built(), reason="CUDA could start")
def test_a_device_that_can_not_start_is_not_exercised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    (cuda,) = (one for one in identify() if one.name == "torch cuda")
    assert not cuda.exercised
    assert cuda.how.startswith("not tried: ")
    assert "CUDA" in cuda.how


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_philox_is_that_of_the_device(found: dict[str, Identification]) -> None:
    assert found["torch cuda"].proven
    assert found["torch cuda"].predicted >= CUDA_THREADS


def test_proving_draws_from_no_generator_of_the_process() -> None:
    def states() -> tuple[Any, ...]:
        taken = snapshot()
        numpy_state = {**taken.numpy, "state": str(taken.numpy["state"]["key"].tolist())}
        return taken.python, numpy_state, taken.torch.tolist()

    before = states()
    identify()
    assert states() == before
    torch.rand(1)  # such a draw would be noticed
    assert states() != before


def test_another_bit_generator_in_numpy_is_left_alone() -> None:
    with fork_rng():
        np.random.set_bit_generator(np.random.PCG64(1))  # type: ignore[attr-defined]  # not in NumPy's stubs
        (legacy,) = (one for one in identify() if one.name == "numpy.random")
    assert not legacy.exercised
    assert "PCG64" in legacy.how
    assert identification.numpy_words(3)
