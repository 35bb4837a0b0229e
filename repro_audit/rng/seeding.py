"""The ambient generators of a training program: seed them, fork them, take and restore their states.

The ambient generators are those that a program draws from without naming one: Python's `random`, NumPy's legacy global
`RandomState`, PyTorch's CPU generator, and one generator for each CUDA device. A generator that the program makes
itself (`random.Random()`, `numpy.random.default_rng()`, `torch.Generator()`) is its own, and out of reach from here.

NumPy and PyTorch are imported when a function first needs them, not with this module.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, SupportsIndex

from repro_audit.torch_internals.generators import CUDA_IN_FORK, CUDA_LOCK, CUDA_QUEUE, CUDA_SEEDS

if TYPE_CHECKING:
    from torch import Tensor

SEED_LIMIT = 2**32
"""Seeds are below this: NumPy's legacy generator takes 32 bits, and one seed has to do for all libraries."""

PendingCall = tuple[Callable[[], None], list[str]]
"""What PyTorch keeps of a call that waits for CUDA: the callback, and the stack that it was queued from."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GeneratorStates:
    """The states of every ambient generator at one moment, as `snapshot` took them and `restore` puts them back.

    They serve in this process and in its forks. Pickling works once CUDA has started, or where no seeding waits for it.
    """

    python: tuple[Any, ...]
    """What `random.getstate()` returned."""
    numpy: dict[str, Any]
    """What `numpy.random.get_state(legacy=False)` returned."""
    torch: Tensor
    """State of PyTorch's CPU generator: one-dimensional, uint8, on the CPU."""
    cuda: tuple[Tensor, ...] | None
    """State of each CUDA device's generator, by device index; None where CUDA was not initialised."""
    cuda_pending: tuple[PendingCall, ...] = ()
    """Where CUDA was not initialised: the seedings that PyTorch had queued for its start."""


def seed_everything(seed: SupportsIndex, *, cudnn_flags: bool = True) -> None:
    """Seed every ambient generator, and pin cuDNN's flags.

    Python's `random`, NumPy's legacy global generator, PyTorch's CPU generator and the generator of every CUDA device
    start from `seed`. PyTorch seeds its other backends (MPS, XPU) along with them. CUDA is not initialised for it:
    where it has not started yet, its devices start from `seed` when it does.

    What this can't do:
      - `PYTHONHASHSEED`: the interpreter reads it once, as it starts. Set it in the environment that Python starts in;
        here it would do nothing but look right.
      - Generators that the program or a library made for itself; give each its own seed.
      - Operations that are nondeterministic whatever the seed: see `torch.use_deterministic_algorithms`.
      - DataLoader workers draw their seeds from the generator seeded here, so they follow; a generator that the dataset
        owns does not, and reaches every worker in the same state.

    Args:
        seed: an integer in 0 <= seed < 2**32 (`SEED_LIMIT`). Beyond that NumPy's legacy generator takes no seed, so
            it is refused rather than wrapped: two seeds that differ must not start the same run.
        cudnn_flags: set `torch.backends.cudnn.deterministic` to True and `.benchmark` to False; where False, both
            flags stay as they are.

    Raises:
        TypeError: `seed` is no integer.
        ValueError: `seed` is out of range. No generator and no flag has been touched then.

    Sources: https://docs.pytorch.org/docs/stable/notes/randomness.html,
        https://docs.python.org/3/using/cmdline.html#envvar-PYTHONHASHSEED
    """
    number = operator.index(seed)
    if not 0 <= number < SEED_LIMIT:
        raise ValueError(
            f"seed {number} is out of range: 0 <= seed < 2**32, which is what NumPy's legacy generator takes"
        )

    import numpy as np
    import torch

    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)
    if cudnn_flags:
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False


def seed_worker(worker_id: int) -> None:
    """Seed `random` and NumPy in a DataLoader worker from PyTorch's own seed there: `worker_init_fn=seed_worker`.

    PyTorch seeds itself in every worker with `base_seed + worker_id`, and draws a new `base_seed` from the loader's
    `generator` (else from the global one) each time the loader is iterated. So the streams differ between workers and
    between epochs, and repeat when the loader's generator is seeded alike. A generator that the dataset owns is
    not reached: derive its seed from `torch.utils.data.get_worker_info().seed`.

    Args:
        worker_id: the worker's number, counted from 0. It is not used, as the seed depends on it already.

    Sources: https://docs.pytorch.org/docs/stable/notes/randomness.html#dataloader
    """
    import numpy as np
    import torch

    worker_seed = torch.initial_seed() % SEED_LIMIT
    random.seed(worker_seed)
    np.random.seed(worker_seed)


@contextmanager
def fork_rng() -> Iterator[None]:
    """Restore every ambient generator on leaving the block, however it is left.

    Inside, the generators go on from where they are; draws and seedings there leave no mark outside. Unlike
    `torch.random.fork_rng` this covers `random` and NumPy too, and does not initialise CUDA. cuDNN's flags are no
    generator: a change to them stays.

    """
    states = snapshot()
    try:
        yield
    finally:
        restore(states)


def snapshot() -> GeneratorStates:
    """The states of every ambient generator, all copied: what is drawn later does not change them.

    CUDA is not initialised for it. Where it has not started, its generators do not exist yet; what will decide their
    states then, the seedings queued so far, is kept instead.
    """
    import numpy as np
    import torch

    started = torch.cuda.is_initialized()
    return GeneratorStates(
        python=random.getstate(),
        numpy=dict(np.random.get_state(legacy=False)),
        torch=torch.get_rng_state(),
        cuda=tuple(torch.cuda.get_rng_state_all()) if started else None,
        cuda_pending=() if started else _pending_cuda_seedings(),
    )


def restore(states: GeneratorStates) -> None:
    """Put every ambient generator back into the state that `snapshot` saw, as often as needed.

    Where CUDA has started since the snapshot, each device's generator gets the state that it would have started in,
    had nothing been seeded in between. Where CUDA had started at the snapshot but not here (states that came from
    another process), it is started. In a process that was forked from one that uses CUDA, such as a DataLoader worker,
    no device can be used: only the other generators are restored there.

    Args:
        states: what `snapshot` returned.

    Raises:
        ValueError: there are states of more CUDA devices than this process sees. Nothing has been touched then.
    """
    import torch

    in_fork = CUDA_IN_FORK.get()()
    if states.cuda and not in_fork and len(states.cuda) > (seen := torch.cuda.device_count()):
        raise ValueError(
            f"states of {len(states.cuda)} CUDA devices can not be restored: this process sees {seen}"
        )
    random.setstate(states.python)
    _restore_numpy(states.numpy)
    torch.set_rng_state(states.torch)
    if in_fork:
        return
    if states.cuda is not None:
        torch.cuda.init()
        torch.cuda.set_rng_state_all(states.cuda)
    elif torch.cuda.is_initialized():
        _start_cuda_generators_again(states.cuda_pending)
    else:
        _queue_cuda_seedings(states.cuda_pending)


def _restore_numpy(state: dict[str, Any]) -> None:
    """Set the legacy generator's state, and first its kind where the program has since put another bit generator in."""
    import numpy as np

    kind = state["bit_generator"]
    if np.random.get_state(legacy=False)["bit_generator"] != kind:
        np.random.set_bit_generator(getattr(np.random, kind)())  # type: ignore[attr-defined]
    np.random.set_state(state)


# NOTE: PyTorch has no public way to ask which seed a device will start from, so this reads the two queues that
# `torch.cuda._lazy_init` runs, in its order: https://github.com/pytorch/pytorch/blob/v2.13.0/torch/cuda/__init__.py


def _seeds_cuda(call: PendingCall) -> bool:
    """Whether a queued call concerns a generator: `torch.cuda.random` queued it."""
    return call[0].__module__ == "torch.cuda.random"


def _pending_cuda_seedings() -> tuple[PendingCall, ...]:
    """The seedings that wait for CUDA to start, in the order in which they will run."""
    seeds = (call for call in CUDA_SEEDS.get().get_calls() if call)
    return tuple(call for call in (*CUDA_QUEUE.get(), *seeds) if _seeds_cuda(call))


def _queue_cuda_seedings(pending: tuple[PendingCall, ...]) -> None:
    """Let exactly these seedings wait for CUDA to start, and keep what else waits for it."""
    queue, seeds = CUDA_QUEUE.get(), CUDA_SEEDS.get()
    with CUDA_LOCK.get():
        queue[:] = [*(call for call in queue if not _seeds_cuda(call)), *pending]
        # A seed in the tracker would run after the queue and win, so it starts afresh.
        CUDA_SEEDS.put(type(seeds)())


def _start_cuda_generators_again(pending: tuple[PendingCall, ...]) -> None:
    """Give each device's generator its state right after CUDA's start: PyTorch's default seed, then what was queued."""
    import torch

    default_seed = torch.Generator().initial_seed()
    torch.cuda.manual_seed_all(default_seed)
    for seeding, _ in pending:
        seeding()
