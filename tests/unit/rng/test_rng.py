"""`repro_audit.rng` against the real generators: Python's, NumPy's, PyTorch's, and DataLoader workers'."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from repro_audit.rng import fork_rng, restore, seed_everything, seed_worker, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DRAWS: dict[str, Callable[[], float]] = {
    "random": random.random,
    # Normal draws come in pairs: the second one waits in the generator's state.
    "gauss": lambda: random.gauss(0, 1),
    "numpy": np.random.rand,
    "numpy-normal": np.random.normal,
    "torch": lambda: torch.rand(()).item(),
    "torch-normal": lambda: torch.randn(()).item(),
}


def draw_all() -> tuple[float, ...]:
    return tuple(draw() for draw in DRAWS.values())


@pytest.fixture(autouse=True)
def _cudnn_flags() -> Iterator[None]:
    cudnn = torch.backends.cudnn
    flags = cudnn.deterministic, cudnn.benchmark
    yield
    cudnn.deterministic, cudnn.benchmark = flags


class TestSeedEverything:
    @pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, np.int64(7)])
    def test_the_same_seed_starts_the_same_streams(self, seed: int) -> None:
        seed_everything(seed)
        first = draw_all()
        seed_everything(seed)
        assert draw_all() == first

    def test_another_seed_moves_every_generator(self) -> None:
        seed_everything(0)
        first = draw_all()
        seed_everything(1)
        assert all(a != b for a, b in zip(first, draw_all(), strict=True))

    def test_it_is_the_libraries_own_seeding(self) -> None:
        seed_everything(5)
        assert random.random() == random.Random(5).random()
        assert np.random.rand() == np.random.RandomState(5).rand()
        assert torch.rand(()) == torch.rand((), generator=torch.Generator().manual_seed(5))

    @pytest.mark.parametrize("seed", [-1, 2**32, 2**64])
    def test_a_seed_out_of_range_is_refused_before_anything_is_touched(self, seed: int) -> None:
        torch.backends.cudnn.deterministic = False
        seed_everything(3, cudnn_flags=False)
        expected = draw_all()
        seed_everything(3, cudnn_flags=False)
        with pytest.raises(ValueError, match=r"0 <= seed < 2\*\*32"):
            seed_everything(seed)
        assert draw_all() == expected
        assert not torch.backends.cudnn.deterministic

    @pytest.mark.parametrize("seed", [1.5, "1", None])
    def test_a_seed_that_is_no_integer_is_refused(self, seed: Any) -> None:
        with pytest.raises(TypeError):
            seed_everything(seed)

    @pytest.mark.parametrize("pin", [True, False])
    def test_cudnn_flags_are_pinned_unless_told_otherwise(self, pin: bool) -> None:
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = False, True
        seed_everything(0, cudnn_flags=pin)
        assert torch.backends.cudnn.deterministic is pin
        assert torch.backends.cudnn.benchmark is not pin


class TestSnapshot:
    @given(
        before=st.lists(st.sampled_from(list(DRAWS)), max_size=4),
        between=st.lists(st.sampled_from(list(DRAWS)), max_size=4),
    )
    def test_restore_brings_back_what_follows(self, before: list[str], between: list[str]) -> None:
        for name in before:
            DRAWS[name]()
        states = snapshot()
        expected = draw_all()
        for name in between:
            DRAWS[name]()
        for _ in range(2):  # the same states serve again
            restore(states)
            assert draw_all() == expected

    @pytest.mark.parametrize("name", DRAWS)
    def test_without_restore_the_stream_moves_on(self, name: str) -> None:
        assert DRAWS[name]() != DRAWS[name]()

    def test_another_kind_of_bit_generator_under_numpy_is_undone(self) -> None:
        states = snapshot()
        expected = draw_all()
        np.random.set_bit_generator(np.random.PCG64(3))  # type: ignore[attr-defined]
        restore(states)
        assert draw_all() == expected
        assert np.random.get_state(legacy=False)["bit_generator"] == "MT19937"


def fail_in_fork(error: type[BaseException]) -> None:
    with fork_rng():
        draw_all()
        raise error


class TestForkRng:
    def test_what_happens_inside_leaves_no_mark(self) -> None:
        seed_everything(0)
        expected = draw_all()
        seed_everything(0)
        with fork_rng():
            draw_all()
            with fork_rng():
                seed_everything(9)
        assert draw_all() == expected

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
    def test_an_exception_passes_and_the_generators_come_back(
        self, error: type[BaseException]
    ) -> None:
        seed_everything(0)
        expected = draw_all()
        seed_everything(0)
        with pytest.raises(error):
            fail_in_fork(error)
        assert draw_all() == expected

    def test_inside_the_streams_go_on(self) -> None:
        seed_everything(0)
        expected = draw_all()
        seed_everything(0)
        with fork_rng():
            assert draw_all() == expected


class Draws(Dataset[tuple[int, float, float, float]]):
    """Each sample is PyTorch's seed in the worker, and the first draw of each library after it."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[int, float, float, float]:
        with fork_rng():  # forks and restores in a worker too
            draw_all()
        return torch.initial_seed(), random.random(), np.random.rand(), torch.rand(()).item()


def seed_alike(_worker_id: int) -> None:
    seed_everything(0)


def epochs(worker_init_fn: Callable[[int], None]) -> list[list[tuple[int, float, float, float]]]:
    """Two epochs of one sample from each of two workers."""
    loader = DataLoader(
        Draws(),
        batch_size=None,
        collate_fn=tuple,
        num_workers=2,
        multiprocessing_context="fork",
        worker_init_fn=worker_init_fn,
        generator=torch.Generator().manual_seed(4),
    )
    return [list(loader), list(loader)]


class TestSeedWorker:
    def test_workers_and_epochs_draw_streams_of_their_own_and_repeat(self) -> None:
        first = epochs(seed_worker)
        samples = [sample for epoch in first for sample in epoch]
        for library in zip(*samples, strict=True):
            assert len(set(library)) == 4
        for seed, python, numpy, pytorch in samples:
            assert python == random.Random(seed % 2**32).random()
            assert numpy == np.random.RandomState(seed % 2**32).rand()
            generator = torch.Generator().manual_seed(seed)
            assert pytorch == torch.rand((), generator=generator).item()
        assert epochs(seed_worker) == first

    def test_workers_seeded_alike_would_show(self) -> None:
        assert len({sample for epoch in epochs(seed_alike) for sample in epoch}) == 1


class FakeDevices:
    """Two CUDA devices that `torch.cuda` starts lazily; their generators are CPU ones, the rest is PyTorch's own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        cuda = torch.cuda
        self.patch = monkeypatch.setattr
        self.patch(cuda, "_initialized", False)
        self.patch(cuda, "_queued_calls", [(self.other_call, [])])
        self.patch(cuda, "_lazy_seed_tracker", type(cuda._lazy_seed_tracker)())
        self.patch(cuda, "default_generators", (torch.Generator(), torch.Generator()))
        self.patch(cuda, "init", self.start)
        self.patch(cuda.random, "current_device", lambda: 0)
        for module in (cuda, cuda.random):
            self.patch(module, "device_count", lambda: 2)
        self.others = 0

    def other_call(self) -> None:
        """Something that waits for CUDA and is not about generators."""
        self.others += 1

    def start(self) -> None:
        """What `torch.cuda._lazy_init` does, but for the driver."""
        cuda = torch.cuda
        if cuda._initialized:
            return
        tracked = (call for call in cuda._lazy_seed_tracker.get_calls() if call)
        self.patch(cuda, "_initialized", True)
        for call, _ in (*cuda._queued_calls, *tracked):
            call()

    def draw(self) -> list[float]:
        """One draw from each device's generator, which starts CUDA."""
        self.start()
        return [torch.rand((), generator=g).item() for g in torch.cuda.default_generators]


def refuse_to_start() -> None:
    msg = "Cannot re-initialize CUDA in forked subprocess"
    raise RuntimeError(msg)


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> FakeDevices:
    return FakeDevices(monkeypatch)


def seeded(*seeds: int) -> list[float]:
    """The first draw of generators with these seeds."""
    return [torch.rand((), generator=torch.Generator().manual_seed(seed)).item() for seed in seeds]


DEFAULT_SEED = torch.Generator().initial_seed()


def seed_all_then_one() -> None:
    torch.cuda.manual_seed_all(5)
    torch.cuda.manual_seed(6)


SEEDINGS: dict[str, tuple[Callable[[], object], list[float]]] = {
    "none": (lambda: None, seeded(DEFAULT_SEED, DEFAULT_SEED)),
    "all": (lambda: torch.cuda.manual_seed_all(5), seeded(5, 5)),
    "everything": (lambda: seed_everything(5), seeded(5, 5)),
    "one": (lambda: torch.cuda.manual_seed(5), seeded(5, DEFAULT_SEED)),
    "all, then one": (seed_all_then_one, seeded(6, 5)),
    "a state": (
        lambda: torch.cuda.set_rng_state(torch.Generator().manual_seed(7).get_state(), 1),
        seeded(DEFAULT_SEED, 7),
    ),
}


class TestCuda:
    @pytest.mark.parametrize(("seeding", "expected"), SEEDINGS.values(), ids=SEEDINGS)
    @pytest.mark.parametrize("start", ["never", "inside", "before"])
    def test_a_lazily_seeded_device_starts_as_if_nothing_had_happened_inside(
        self,
        devices: FakeDevices,
        seeding: Callable[[], object],
        expected: list[float],
        start: str,
    ) -> None:
        seeding()
        if start == "before":
            devices.start()
        with fork_rng():
            torch.manual_seed(99)
            torch.cuda.manual_seed(98)
            torch.cuda.set_rng_state(torch.Generator().manual_seed(97).get_state(), 1)
            if start == "inside":
                devices.draw()
        assert torch.cuda.is_initialized() is (start != "never")
        assert devices.draw() == expected
        assert devices.others == 1

    def test_without_fork_the_seeding_inside_would_show(self, devices: FakeDevices) -> None:
        torch.cuda.manual_seed_all(5)
        torch.manual_seed(99)
        assert devices.draw() == seeded(99, 99)

    def test_a_seed_after_a_restore_wins(self, devices: FakeDevices) -> None:
        torch.cuda.manual_seed_all(5)
        restore(snapshot())
        torch.cuda.manual_seed_all(6)
        assert devices.draw() == seeded(6, 6)

    def test_states_of_used_devices_come_back(self, devices: FakeDevices) -> None:
        devices.draw()
        states = snapshot()
        expected = devices.draw()
        devices.draw()
        restore(states)
        assert devices.draw() == expected

    def test_states_from_another_process_start_cuda(
        self, devices: FakeDevices, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        devices.start()
        states = snapshot()
        expected = devices.draw()
        FakeDevices(monkeypatch)
        torch.cuda.manual_seed_all(5)
        restore(pickle.loads(pickle.dumps(states)))  # noqa: S301 - our own bytes
        assert torch.cuda.is_initialized()
        assert devices.draw() == expected

    def test_states_of_more_devices_than_there_are_are_refused(
        self, devices: FakeDevices, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        devices.start()
        states = snapshot()
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        expected = random.Random(0)
        random.seed(0)
        with pytest.raises(ValueError, match=r"states of 2 CUDA devices .* sees 1"):
            restore(states)
        assert random.random() == expected.random()

    def test_a_process_forked_from_one_that_uses_cuda_restores_the_rest(
        self, devices: FakeDevices, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        devices.start()
        states = snapshot()
        expected = draw_all()
        monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
        monkeypatch.setattr(torch.cuda, "init", refuse_to_start)
        restore(states)
        assert draw_all() == expected

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    def test_real_devices(self) -> None:
        with fork_rng():
            seed_everything(5, cudnn_flags=False)
            first = torch.rand(3, device="cuda")
            states = snapshot()
            second = torch.rand(3, device="cuda")
            restore(states)
            assert torch.equal(torch.rand(3, device="cuda"), second)
            seed_everything(5, cudnn_flags=False)
            assert torch.equal(torch.rand(3, device="cuda"), first)


def run_python(code: str) -> None:
    """In an interpreter of its own."""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=dict(os.environ))


class TestImport:
    def test_it_brings_neither_torch_nor_numpy(self) -> None:
        run_python(
            "import sys, repro_audit.rng; assert not {'torch', 'numpy'} & set(sys.modules), 'imported'"
        )

    def test_the_check_would_notice(self) -> None:
        with pytest.raises(subprocess.CalledProcessError):
            run_python("import sys, numpy; assert not {'torch', 'numpy'} & set(sys.modules)")
