"""The engines in plain Python integers, written from their papers and independent of the libraries that use them.

- MT19937: Matsumoto and Nishimura, "Mersenne Twister", ACM TOMACS 8(1), 1998.
- PCG64 (XSL-RR 128/64): O'Neill, "PCG: A Family of Simple Fast Space-Efficient Statistically Good Algorithms for
  Random Number Generation", Harvey Mudd College HMC-CS-2014-0905, 2014.
- Philox4x32-10: Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC11, 2011.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

MT_WORDS = 624
"""Words of 32 bits in an MT19937 state, and so the outputs that give it away."""
_MT_MIDDLE = 397
_MT_MATRIX = 0x9908B0DF
_UPPER, _LOWER = 0x80000000, 0x7FFFFFFF
_MASK32, _MASK64, _MASK128 = 2**32 - 1, 2**64 - 1, 2**128 - 1

PCG_MULTIPLIER = 0x2360ED051FC65DA44385DF649FCCF645
"""By which PCG64 multiplies its state, modulo 2**128."""

_PHILOX_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_PHILOX_WEYL = (0x9E3779B9, 0xBB67AE85)
PHILOX_ROUNDS = 10


def temper(word: int) -> int:
    """What MT19937 puts out for a word of its state."""
    word ^= word >> 11
    word ^= (word << 7) & 0x9D2C5680
    word ^= (word << 15) & 0xEFC60000
    return word ^ (word >> 18)


def untemper(output: int) -> int:
    """The word of the state that MT19937 put `output` out for; `temper`'s inverse on 0 <= output < 2**32."""
    word = output ^ (output >> 18)
    word ^= (word << 15) & 0xEFC60000
    shifted = word
    for _ in range(4):  # each round puts 7 more bits right, from the lowest
        word = shifted ^ ((word << 7) & 0x9D2C5680)
    shifted = word
    for _ in range(2):  # 11 more bits, from the highest
        word = shifted ^ (word >> 11)
    return word


class MersenneTwister:
    """MT19937, at any point of its stream.

    Args:
        state: its 624 words of 32 bits.
        position: how many of them are used up, 0 to 624.
    """

    def __init__(self, state: Sequence[int], position: int = MT_WORDS) -> None:
        if len(state) != MT_WORDS or not 0 <= position <= MT_WORDS:
            raise ValueError(f"a state has {MT_WORDS} words and a position in it")
        self._state = list(state)
        self._position = position

    @classmethod
    def after(cls, outputs: Sequence[int]) -> MersenneTwister:
        """The generator that has just put out these 624 outputs of 32 bits, wherever in its block the first one was."""
        return cls([untemper(output) for output in outputs])

    def next_word(self) -> int:
        """The next output of 32 bits."""
        if self._position == MT_WORDS:
            self._regenerate()
        self._position += 1
        return temper(self._state[self._position - 1])

    def _regenerate(self) -> None:
        state = self._state
        for index in range(MT_WORDS):
            joined = (state[index] & _UPPER) | (state[(index + 1) % MT_WORDS] & _LOWER)
            twisted = (joined >> 1) ^ (_MT_MATRIX if joined & 1 else 0)
            state[index] = state[(index + _MT_MIDDLE) % MT_WORDS] ^ twisted
        self._position = 0


def pcg64(state: int, increment: int) -> Iterator[int]:
    """The outputs of 64 bits of PCG64 from a state: step the state, then fold and rotate it (XSL-RR).

    Args:
        state: 128 bits.
        increment: 128 bits, odd; it names the stream.
    """
    while True:
        state = (state * PCG_MULTIPLIER + increment) & _MASK128
        folded = (state >> 64) ^ (state & _MASK64)
        turn = state >> 122
        yield ((folded >> turn) | (folded << (-turn & 63))) & _MASK64


def philox4x32(
    counter: tuple[int, int, int, int], key: tuple[int, int], rounds: int = PHILOX_ROUNDS
) -> tuple[int, int, int, int]:
    """Philox4x32: four outputs of 32 bits, a function of the counter and the key alone."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(rounds):
        high0, low0 = divmod(_PHILOX_MULTIPLIERS[0] * c0, 2**32)
        high1, low1 = divmod(_PHILOX_MULTIPLIERS[1] * c2, 2**32)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _PHILOX_WEYL[0]) & _MASK32, (k1 + _PHILOX_WEYL[1]) & _MASK32
    return c0, c1, c2, c3


def philox_of_thread(seed: int, thread: int, offset: int) -> tuple[int, int, int, int]:
    """The four outputs that cuRAND's Philox gives a CUDA thread first.

    Args:
        seed: 64 bits, the key.
        thread: the thread's number in its grid, which cuRAND calls the subsequence.
        offset: outputs of 32 bits that a thread of this generator has drawn, a multiple of 4.
    """
    block = offset // 4
    return philox4x32(
        (block & _MASK32, block >> 32, thread & _MASK32, thread >> 32),
        (seed & _MASK32, seed >> 32),
    )
