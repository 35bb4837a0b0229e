"""What the probe observes, and that it changes nothing."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import random
import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler, TensorDataset

from repro_audit.probe import Probe, StopTraining
from repro_audit.probe.digest import generators
from repro_audit.probe.digest.capture import ValueWriter
from repro_audit.probe.digest.stored import is_generator
from repro_audit.probe.digest.tensors import digest
from repro_audit.probe.steps import functional
from repro_audit.probe.steps.models import ByIdentity
from repro_audit.probe.steps.recorder import Recorder, TensorSlot
from repro_audit.storage.trace import Phase, TraceWriter
from repro_audit.storage.values import open_values
from tests.probing import Watched, watching

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))


def dataset(count: int = 12) -> TensorDataset:
    return TensorDataset(torch.arange(3.0 * count).reshape(count, 3) / 9, torch.arange(count) % 2)


def fit(net: nn.Module, loader: Any, optimizer: torch.optim.Optimizer, epochs: int = 1) -> None:
    for _ in range(epochs):
        for x, y in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()


def run(net: nn.Module | None = None, epochs: int = 1, **options: Any) -> nn.Module:
    """A whole training, as a program writes it."""
    torch.manual_seed(1)
    net = net or model()
    loader = DataLoader(dataset(), **{"batch_size": 4, "shuffle": True, **options})
    fit(net, loader, torch.optim.Adam(net.parameters()), epochs)
    return net


def state(net: nn.Module) -> list[bytes]:
    return [digest(each) for each in net.state_dict().values()]


# Leaving the program as it is


def test_observing_changes_nothing(tmp_path: Path) -> None:
    plain = run(epochs=2)
    plain_after = list(generators.ambient())
    with watching(tmp_path):
        watched = run(epochs=2)
    watched_after = list(generators.ambient())
    assert state(plain) == state(watched)
    assert plain_after == watched_after


def hooked() -> list[object]:
    from torch.optim import optimizer
    from torch.utils.data import dataloader
    from torch.utils.data._utils import worker

    iterator, workers = dataloader._BaseDataLoaderIter, dataloader._MultiProcessingDataLoaderIter
    return [
        *(nn.Module.__call__, torch.autograd.backward, torch.autograd.grad, worker._worker_loop),
        *(vars(iterator).get(name) for name in ("__init__", "__next__", "_reset", "_next_index")),
        vars(workers)["_process_data"],
        *optimizer._global_optimizer_pre_hooks.values(),
        *optimizer._global_optimizer_post_hooks.values(),
    ]


def test_uninstalling_leaves_torch_as_it_was(tmp_path: Path) -> None:
    before = hooked()
    with watching(tmp_path):
        run(num_workers=1)
        assert hooked() != before
    assert hooked() == before


def test_two_probes_at_once_are_refused(tmp_path: Path) -> None:
    with watching(tmp_path / "first"), pytest.raises(RuntimeError), watching(tmp_path / "second"):
        pass


def test_nothing_of_the_program_is_kept_alive(tmp_path: Path) -> None:
    with watching(tmp_path):
        net = run()
        loss = net(torch.ones(4, 3)).sum()
        loss.backward()
        gone = [weakref.ref(each) for each in (net, loss, *net.parameters(), *net.buffers())]
        del net, loss
        gc.collect()
        assert [each for each in gone if each() is not None] == []


def test_a_model_can_be_copied_pickled_and_resized(tmp_path: Path) -> None:
    with watching(tmp_path):
        net = run()
        pickle.loads(pickle.dumps(copy.deepcopy(net)))  # noqa: S301 - our own
        buffer = torch.zeros(4)
        net.register_buffer("extra", buffer)
        run(net)
        buffer.resize_(1_000)


def test_the_same_program_gives_the_same_trace(tmp_path: Path) -> None:
    rows = []
    for name in ("first", "second"):
        with watching(tmp_path / name) as watched:
            random.seed(0)
            np.random.seed(0)
            run(epochs=2)
        rows.append(watched.rows)
    assert rows[0] == rows[1]


# Order and names


def test_a_step_in_order(tmp_path: Path) -> None:
    with watching(tmp_path) as watched:
        run(batch_size=12)
    names = [(row.phase, row.name) for row in watched.rows]
    layers = ("0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias")
    buffers = [
        f"buffer.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")
    ]
    moments = [f"{name}.{key}" for name in layers for key in ("step", "exp_avg", "exp_avg_sq")]
    after = []
    for name in layers:
        after += [f"param.{name}", *(f"state.{each}" for each in moments if each.startswith(name))]
    rngs = [f"rng.{name}" for name in ("python", "numpy", "torch")]
    assert names == [
        *((Phase.DATA, name) for name in ("batch.indices", *rngs, "batch.0", "batch.1")),
        *((Phase.INIT, name) for name in rngs),
        *((Phase.INIT, f"param.{name}") for name in layers),
        *((Phase.INIT, name) for name in buffers),
        *((Phase.FORWARD, name) for name in ("output", "loss")),
        *((Phase.BACKWARD, f"grad.{name}") for name in layers),
        *((Phase.OPTIMIZER, name) for name in (*after, *buffers)),
    ]


def test_values_are_the_programs(tmp_path: Path) -> None:
    net, x = nn.Linear(3, 2), torch.ones(4, 3)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with watching(tmp_path) as watched:
        expected = {"param.weight": [digest(net.weight)], "batch": [], "rng.torch": []}
        output = net(x)
        loss = output.sum()
        loss.backward()
        assert net.weight.grad is not None
        expected |= {name: [digest(each)] for name, each in (("output", output), ("loss", loss))}
        expected["grad.weight"] = [digest(net.weight.grad)]
        optimizer.step()
        expected["param.weight"].append(digest(net.weight))
        expected["rng.torch"] = [generators.torch_digest(torch.default_generator)] * 2
    assert {name: watched.digests(name) for name in expected} == expected
    assert watched.probe.losses == [loss.item()]


def test_several_modules_have_names_of_their_own(tmp_path: Path) -> None:
    with watching(tmp_path) as watched:
        first, second, third = nn.Linear(1, 1), nn.Bilinear(1, 1, 1), nn.Linear(1, 1)
        x = torch.ones(2, 1)
        nn.MSELoss()(third(second(x, first(x))), x)
        nn.MSELoss()(first(x), x)
    assert watched.outcomes(Phase.FORWARD) == [
        *("output", "Bilinear.output", "Linear.output", "MSELoss.output"),
        *("output", "MSELoss.output"),
    ]
    assert [name for name in watched.outcomes(Phase.INIT) if "weight" in name] == [
        *("param.weight", "param.Bilinear.weight", "param.Linear.weight")
    ]


def test_a_part_of_a_known_model(tmp_path: Path) -> None:
    with watching(tmp_path) as watched:
        net = model()
        watched.probe.hooks.module(net)
        last, first = net.get_submodule("3"), net.get_submodule("0")
        last(first(torch.ones(2, 3)))
    assert watched.outcomes(Phase.FORWARD) == ["0.output", "3.output"]


@pytest.mark.parametrize(
    ("output", "names"),
    [
        (lambda x: x, ["output"]),
        (lambda x: (x, [x]), ["output.0", "output.1.0"]),
        (lambda x: {"logits": x, "aux": None}, ["output.logits", "output.aux"]),
    ],
)
def test_outputs_leaf_by_leaf(
    tmp_path: Path, output: Callable[[Any], Any], names: list[str]
) -> None:
    class Net(nn.Linear):
        def forward(self, x: Any) -> Any:
            return output(super().forward(x))

    with watching(tmp_path) as watched:
        Net(2, 2)(torch.ones(1, 2))
    assert watched.outcomes(Phase.FORWARD) == names


def test_a_forward_that_raises(tmp_path: Path) -> None:
    net = nn.Linear(3, 2)
    with watching(tmp_path) as watched:
        with pytest.raises(RuntimeError):
            net(torch.ones(1, 7))
        net(torch.ones(1, 3))
    assert watched.outcomes(Phase.FORWARD) == ["output"]


def test_parameters_of_no_module_are_named_by_their_group(tmp_path: Path) -> None:
    free = [torch.ones(2, requires_grad=True) for _ in range(3)]
    optimizer = torch.optim.SGD([{"params": free[:1]}, {"params": free[1:]}], lr=0.1)
    with watching(tmp_path) as watched:
        torch.stack(free).sum().backward()
        optimizer.step()
    assert watched.outcomes(Phase.OPTIMIZER) == [
        *("param.SGD.0.0", "param.SGD.1.0", "param.SGD.1.1")
    ]


def test_a_parameter_that_joins_late(tmp_path: Path) -> None:
    net = model()
    with watching(tmp_path) as watched:
        net(torch.ones(2, 3))
        net.register_parameter("late", nn.Parameter(torch.ones(1)))
        net.late.sum().backward()  # type: ignore[operator]
        torch.optim.SGD(net.parameters(), lr=0.1).step()
    assert "param.late" in watched.outcomes(Phase.OPTIMIZER)


# Steps


def test_training_is_stopped_after_enough_steps(tmp_path: Path) -> None:
    left = []

    def careless() -> None:
        try:
            run()
        except Exception:
            left.append("caught")
        finally:
            model()(torch.ones(2, 3))

    with watching(tmp_path, max_steps=2) as watched:
        with pytest.raises(StopTraining):
            careless()
        rows = len(watched.rows)
        assert watched.rows[-1].step == 1
    assert (watched.probe.steps, left) == (2, [])
    assert rows == len(watched.rows)


def test_a_program_that_catches_everything_trains_no_further(tmp_path: Path) -> None:
    weights: list[bytes] = []
    net = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with watching(tmp_path, max_steps=2) as watched:
        for _ in range(5):
            net(torch.ones(1, 3)).sum().backward()
            try:
                optimizer.step()
            except BaseException:
                weights.append(digest(net.weight))
    assert watched.probe.steps == 2
    assert len(weights) == 4
    assert len(set(weights)) == 1


def test_gradients_that_are_accumulated(tmp_path: Path) -> None:
    net = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with watching(tmp_path) as watched:
        for number in range(4):
            net(torch.full((1, 3), number + 1.0)).sum().backward()
            if number % 2:
                optimizer.step()
    assert (watched.probe.steps, watched.probe.backwards) == (2, 4)
    assert watched.outcomes(Phase.FORWARD, 1) == ["output", "loss"] * 2


def test_an_optimizer_around_another_is_one_step(tmp_path: Path) -> None:
    net = nn.Linear(3, 2)

    class Around(torch.optim.Optimizer):
        def __init__(self, parameters: Iterator[nn.Parameter]) -> None:
            super().__init__(parameters, {})
            self.inner = torch.optim.SGD(self.param_groups, lr=0.1)

        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            if closure is not None:
                closure()
            self.inner.step()

    optimizer = Around(net.parameters())

    def fails() -> None:
        raise ZeroDivisionError

    with watching(tmp_path) as watched:
        net(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        assert watched.probe.steps == 1
        with pytest.raises(ZeroDivisionError):
            optimizer.step(fails)
        optimizer.inner.step()
        assert watched.probe.steps == 2


def test_a_grad_scaler(tmp_path: Path) -> None:
    net = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    with watching(tmp_path) as watched:
        for x in (torch.ones(1, 3), torch.full((1, 3), float("inf"))):
            optimizer.zero_grad()
            scaler.scale(net(x).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
    assert watched.probe.steps == 1
    assert watched.digests("grad.weight") == [digest(torch.ones(2, 3))]


def test_steps_by_hand(tmp_path: Path) -> None:
    net = nn.Linear(3, 2)

    def train() -> None:
        for _ in range(10):
            for parameter in net.parameters():
                parameter.grad = None
            net(torch.ones(1, 3)).sum().backward()
            for parameter in net.parameters():
                parameter.data = parameter.data - 0.1 * parameter.grad  # type: ignore[operator]

    with watching(tmp_path, max_steps=3) as watched:
        with pytest.raises(StopTraining):
            train()
        assert watched.probe.steps == 3
        assert len(set(watched.digests("param.weight"))) == 4


def in_place(w: torch.Tensor, loss: torch.Tensor) -> torch.Tensor:
    loss.backward()
    assert w.grad is not None
    with torch.no_grad():
        w -= 0.1 * w.grad
        w.grad = None
    return w


def replaced(w: torch.Tensor, loss: torch.Tensor) -> torch.Tensor:
    loss.backward()
    assert w.grad is not None
    return (w - 0.1 * w.grad).detach().requires_grad_()


def by_grad(w: torch.Tensor, loss: torch.Tensor) -> torch.Tensor:
    (grad,) = torch.autograd.grad(loss, [w])
    return (w.detach() - 0.1 * grad).requires_grad_()


@pytest.mark.parametrize("update", [in_place, replaced, by_grad])
def test_steps_of_tensors_in_no_module(update: Any, tmp_path: Path) -> None:
    start = torch.tensor([1.0, 2.0])

    def train() -> None:
        w, bias, kept = start.clone().requires_grad_(), torch.ones(1, requires_grad=True), []
        for _ in range(10):
            loss = ((torch.ones(4, 2) @ w + bias) ** 2).mean()
            kept.append(loss)
            w = update(w, loss)

    with watching(tmp_path, max_steps=3) as watched:
        with pytest.raises(StopTraining):
            train()
        assert watched.probe.steps == 3
    (tensor,) = (
        name
        for name in ("tensor0", "tensor1")
        if watched.digests(f"param.{name}")[0] == digest(start)
    )
    assert len(set(watched.digests(f"param.{tensor}"))) == 4


def squared(params: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    return ((x @ params["weight"] + params["bias"]) ** 2).mean()


def descended(params: Any, grads: Any) -> dict[str, torch.Tensor]:
    return {name: value - 0.1 * grads[name] for name, value in params.items()}


def by_new_arguments(params: dict[str, torch.Tensor], x: torch.Tensor) -> None:
    while True:
        grads, _ = torch.func.grad_and_value(squared)(params, x)
        params = descended(params, grads)


def by_arguments_in_place(params: dict[str, torch.Tensor], x: torch.Tensor) -> None:
    while True:
        for name, grad in torch.func.grad(squared)(params, x).items():
            params[name] -= 0.1 * grad


def by_gradients_of_gradients(params: dict[str, torch.Tensor], x: torch.Tensor) -> None:
    def adapted(params: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        return squared(descended(params, torch.func.grad(squared)(params, x)), x)

    while True:
        params = descended(params, torch.func.grad(adapted)(params, x))


def by_an_ensemble(params: dict[str, torch.Tensor], x: torch.Tensor) -> None:
    params = {name: torch.stack([value, 2 * value]) for name, value in params.items()}
    while True:
        grads = torch.vmap(torch.func.grad(squared), in_dims=(0, None))(params, x)
        params = descended(params, grads)


@pytest.mark.parametrize(
    "train",
    [by_new_arguments, by_arguments_in_place, by_gradients_of_gradients, by_an_ensemble],
)
def test_steps_of_parameters_that_torch_func_is_given(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Optimizers of other tests may still be in this process.
    monkeypatch.setattr(functional, "_is_an_optimizer_around", lambda: False)
    before = torch._functorch.eager_transforms.grad_and_value_impl
    params = {"weight": torch.tensor([1.0, 2.0]), "bias": torch.ones(1)}
    with watching(tmp_path, max_steps=3) as watched:
        with pytest.raises(StopTraining):
            train(params, torch.ones(4, 2))
        assert watched.probe.steps == 3
    assert torch._functorch.eager_transforms.grad_and_value_impl is before
    assert len(set(watched.digests("param.weight"))) == 4
    assert len(watched.digests("grad.weight")) == 3


def test_torch_func_makes_no_steps_beside_an_optimizer(tmp_path: Path) -> None:
    net = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    slope = torch.vmap(torch.func.grad(lambda x: net(x).tanh().squeeze()))
    with watching(tmp_path) as watched:
        for start in range(2):
            at = torch.arange(start, start + 4.0).reshape(2, 2)
            (slope(at) + slope(at + 1)).square().mean().backward()
            optimizer.step()
        assert watched.probe.steps == 2


def test_modules_that_are_changed_by_hand_beside_an_optimizer_make_steps(tmp_path: Path) -> None:
    net = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def train() -> None:
        while optimizer.param_groups:
            own = {"weight": net.weight.detach()[0], "bias": net.bias.detach()}
            slopes = torch.func.grad(squared)(own, torch.ones(4, 2))
            with torch.no_grad():
                net.weight.sub_(0.1 * slopes["weight"])

    with watching(tmp_path, max_steps=3) as watched:
        watched.probe.hooks.module(net)
        with pytest.raises(StopTraining):
            train()
        assert watched.probe.steps == 3


def test_values_by_identity_come_in_the_order_in_which_they_were_set() -> None:
    values: ByIdentity[int] = ByIdentity()
    first, second = nn.Identity(), nn.Identity()
    values.set(first, 1)
    values.set(second, 2)
    # As where another object has come to the address of one that is gone.
    values._items[id(first)] = (weakref.ref(second), 0)
    values.set(first, 3)
    assert list(values.items()) == [(second, 2), (first, 3)]


def test_changes_before_any_backward_are_no_steps(tmp_path: Path) -> None:
    net = nn.Linear(3, 2)
    with watching(tmp_path) as watched:
        for _ in range(3):
            net(torch.ones(1, 3))
            nn.init.normal_(net.weight)
        net(torch.ones(1, 3)).sum().backward()
        net(torch.ones(1, 3))
        watched.probe.hooks.finish()
    assert watched.probe.steps == 0


def test_what_an_optimizer_does_not_cover_is_seen_when_it_changes(tmp_path: Path) -> None:
    net = nn.ModuleDict({"student": nn.Linear(2, 1), "teacher": nn.Linear(2, 1)})
    optimizer = torch.optim.SGD(net["student"].parameters(), lr=0.1)
    with watching(tmp_path) as watched:
        watched.probe.hooks.module(net)
        for _ in range(2):
            net["student"](torch.ones(1, 2)).sum().backward()
            with torch.no_grad():
                net["teacher"].weight.mul_(0.5)  # type: ignore[operator]
            optimizer.step()
        net["teacher"].bias.data.zero_()  # type: ignore[operator]
        watched.probe.hooks.finish()
    assert len(set(watched.digests("param.teacher.weight"))) == 3
    assert len(set(watched.digests("param.teacher.bias"))) == 2


# Odd programs


def test_an_evaluation_between_steps(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = model()
    train, test = DataLoader(dataset(), batch_size=6), DataLoader(dataset(4), batch_size=4)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with watching(tmp_path) as watched:
        for x, y in train:
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
            net.eval()
            with torch.no_grad():
                for x_test, _ in test:
                    net(x_test)
            net.train()
    first, second = watched.probe.loaders
    assert (first.training, first.epochs, first.batches, first.samples) == (True, 1, 2, 12)
    assert (second.training, second.epochs, second.batches, second.samples) == (False, 2, 2, 4)
    assert "loader1.batch.0" in watched.outcomes(Phase.DATA)
    assert watched.outcomes(Phase.FORWARD, 1) == ["output", "output", "loss"]


def test_other_threads_are_not_observed(tmp_path: Path) -> None:
    with watching(tmp_path) as watched:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert (watched.rows, watched.probe.steps) == ([], 0)


def test_forked_children_are_not_observed(tmp_path: Path) -> None:
    with watching(tmp_path) as watched:
        child = os.fork()
        if child == 0:
            net = nn.Linear(1, 1)
            net(torch.ones(1, 1)).sum().backward()
            torch.optim.SGD(net.parameters(), lr=0.1).step()
            os._exit(watched.probe.steps)
        assert os.waitpid(child, 0)[1] == 0
        run()
    assert watched.probe.steps == 3


def test_a_checkpointed_module_runs_once(tmp_path: Path) -> None:
    net = nn.Linear(2, 2)
    with watching(tmp_path) as watched:
        x = torch.ones(1, 2, requires_grad=True)
        for reentrant in (False, True):
            checkpoint(net, x, use_reentrant=reentrant).sum().backward()
    assert watched.outcomes(Phase.FORWARD) == ["output", "loss"] * 2


def test_torch_compile_has_nothing_to_trace(tmp_path: Path) -> None:
    net = model()
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    with watching(tmp_path) as watched:
        compiled(torch.ones(2, 3)).sum().backward()
        torch.optim.SGD(net.parameters(), lr=0.1).step()
    assert watched.outcomes(Phase.FORWARD) == ["output", "loss"]
    assert "param.0.weight" in watched.outcomes(Phase.OPTIMIZER)


def test_tracing_is_no_training(tmp_path: Path) -> None:
    with watching(tmp_path) as watched:
        graph = torch.fx.symbolic_trace(model())
        assert watched.outcomes() == []
        graph(torch.ones(2, 3))
    assert watched.outcomes(Phase.FORWARD) == ["output"]


class Unreadable:
    """A value that fails whatever is asked of it."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


def test_a_value_that_can_not_be_read_stops_nothing(tmp_path: Path) -> None:
    with watching(tmp_path) as watched:
        samples: Any = [Unreadable()]
        loader: DataLoader[Any] = DataLoader(
            samples, batch_size=None, collate_fn=lambda each: [each]
        )
        assert len(list(loader)) == 1
    assert len(watched.outcomes(Phase.DATA)) == 1


# DataLoaders


class Squares(Dataset[Any]):
    """Runs a module and draws numbers to make a sample."""

    def __init__(self) -> None:
        self.net = nn.Linear(1, 1)

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        return self.net(torch.ones(1)).detach() * index + random.random()


def reverse(count: int) -> list[int]:
    return list(range(count))[::-1]


class Reused(Sampler[Any]):
    """Hands out the same list again and again."""

    def __iter__(self) -> Iterator[list[int]]:
        indices = [0, 0]
        for start in range(0, 8, 2):
            indices[:] = [start, start + 1]
            yield indices


LOADERS: dict[str, tuple[Callable[[], DataLoader[Any]], list[str]]] = {
    "plain": (lambda: DataLoader(Squares(), batch_size=4), ["0, 1, 2, 3", "4, 5, 6, 7"]),
    "sampler": (lambda: DataLoader(Squares(), batch_size=4, sampler=reverse(8)), ["7, 6, 5, 4", "3, 2, 1, 0"]),
    "batch_sampler": (
        lambda: DataLoader(Squares(), batch_sampler=BatchSampler(reverse(8), 6, drop_last=False)),
        ["7, 6, 5, 4, 3, 2", "1, 0"],
    ),
    "reused list": (lambda: DataLoader(Squares(), batch_sampler=Reused()), ["0, 1", "2, 3", "4, 5", "6, 7"]),
    "no batches": (lambda: DataLoader(Squares(), batch_size=None, sampler=[5, 2]), ["5", "2"]),
    "many": (lambda: DataLoader(dataset(70), batch_size=70), [f"{', '.join(map(str, range(64)))}, …"]),
}  # fmt: skip


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", LOADERS)
def test_indices_belong_to_the_batch_taken(tmp_path: Path, name: str, workers: int) -> None:
    make, expected = LOADERS[name]
    with watching(tmp_path) as watched:
        loader = make()
        loader.num_workers = workers
        loader.prefetch_factor = 2 if workers else None
        for count, _ in enumerate(loader, 1):
            assert len(watched.contexts("batch.indices")) == count
    assert [row.meta for row in watched.contexts("batch.indices")] == expected
    assert not watched.outcomes(Phase.FORWARD)


class First(Dataset[Any]):
    """Its first sample takes until another one has come."""

    def __init__(self, gate: Any) -> None:
        self.gate = gate

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        if index == 0:
            self.gate.wait(timeout=60)
        return index


def test_batches_out_of_order_keep_their_indices(tmp_path: Path) -> None:
    gate = torch.multiprocessing.get_context("fork").Event()
    with watching(tmp_path) as watched:
        loader = DataLoader(
            First(gate), num_workers=2, in_order=False, multiprocessing_context="fork"
        )
        taken = []
        for batch in loader:
            taken.append(str(batch.item()))
            gate.set()
    assert [row.meta for row in watched.contexts("batch.indices")] == taken
    assert sorted(taken) == ["0", "1", "2", "3"]
    assert taken != sorted(taken)


@pytest.mark.parametrize("persistent", [False, True])
def test_epochs_with_workers(tmp_path: Path, *, persistent: bool) -> None:
    with watching(tmp_path) as watched:
        run(epochs=2, num_workers=2, persistent_workers=persistent, shuffle=False)
    indices = [row.meta for row in watched.contexts("batch.indices")]
    assert indices == ["0, 1, 2, 3", "4, 5, 6, 7", "8, 9, 10, 11"] * 2
    (facts,) = watched.probe.loaders
    assert (facts.epochs, facts.num_workers, facts.persistent) == (2, 2, persistent)


class Sub(DataLoader[Any]):
    """As wrappers do it: an own iterator around torch's."""

    def __iter__(self) -> Any:
        for batch in super().__iter__():
            yield batch[0] * 2, batch[1]


def test_a_subclass_of_data_loader(tmp_path: Path) -> None:
    with watching(tmp_path) as watched:
        assert len(list(Sub(dataset(), batch_size=4))) == 3
    assert watched.outcomes(Phase.DATA) == ["batch.0", "batch.1"] * 3
    assert len(watched.contexts("batch.indices")) == 3


class Nested(Dataset[Any]):
    """Reads a loader to make a sample."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        return sum(x.sum() + index for x, _ in DataLoader(dataset(4), batch_size=2))


def test_a_loader_inside_a_dataset(tmp_path: Path) -> None:
    with watching(tmp_path) as watched:
        list(DataLoader(Nested()))
    assert watched.outcomes(Phase.DATA) == ["batch"] * 2
    assert len(watched.probe.loaders) == 1


# Generators


@pytest.mark.parametrize("library", ["python", "numpy", "torch"])
def test_a_generator_that_was_drawn_from(library: str) -> None:
    draws: dict[str, Callable[[], object]] = {
        "python": random.random,
        "numpy": np.random.rand,
        "torch": lambda: torch.rand(1),
    }
    states = dict(generators.ambient())
    assert dict(generators.ambient()) == states
    draws[library]()
    changed = {name for name, bits in generators.ambient() if bits != states[name]}
    assert changed == {f"rng.{library}"}


@pytest.mark.parametrize("fast", [True, False])
def test_states_read_from_memory_are_the_states(
    monkeypatch: pytest.MonkeyPatch, *, fast: bool
) -> None:
    assert generators._PYTHON_AS_EXPECTED
    assert generators._NUMPY_AS_EXPECTED
    monkeypatch.setattr(generators, "_PYTHON_AS_EXPECTED", fast)
    monkeypatch.setattr(generators, "_NUMPY_AS_EXPECTED", fast)
    digests = []
    for seed in (1, 1, 2):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        digests.append(dict(generators.ambient()))
    assert digests[0] == digests[1]
    assert set(digests[0].items()).isdisjoint(digests[2].items())


def numpy_generator(bits: Callable[[int], Any], seed: int) -> Any:
    return np.random.Generator(bits(seed))


def reseed(generator: Any) -> None:
    """Seed anew, by whichever way there is."""
    if isinstance(generator, torch.Generator):
        generator.manual_seed(9)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = type(generator.bit_generator)(9).state
    else:
        generator.seed(9)


def draw(generator: Any) -> None:
    """Draw enough for a Mersenne Twister to renew its words every second time."""
    if isinstance(generator, torch.Generator):
        torch.rand(300, generator=generator)
    else:
        for _ in range(300):
            generator.random()


GENERATORS: dict[str, Callable[[int], Any]] = {
    "random.Random": random.Random,
    "RandomState": np.random.RandomState,
    "torch": lambda seed: torch.Generator().manual_seed(seed),
    "MT19937": partial(numpy_generator, np.random.MT19937),
    "PCG64": partial(numpy_generator, np.random.PCG64),
    "PCG64DXSM": partial(numpy_generator, np.random.PCG64DXSM),
    "Philox": partial(numpy_generator, np.random.Philox),
}


@pytest.mark.parametrize("kind", GENERATORS)
def test_whether_a_state_was_reached_by_drawing(kind: str) -> None:
    make = GENERATORS[kind]
    generator = make(3)
    assert is_generator(generator)
    follows, start = generators.begin(generator), generators.digest_of(generator)
    assert generators.digest_of(make(3)) == start != generators.digest_of(make(4))
    for _ in range(5):
        draw(generator)
        assert generators.digest_of(generator) != start
        assert follows()
    reseed(generator)
    draw(generator)
    assert not follows()


def test_where_it_can_not_be_told() -> None:
    generator = np.random.Generator(np.random.SFC64(3))
    follows = generators.begin(generator)
    generator.random()
    assert follows() is None


def test_what_is_no_generator() -> None:
    assert not any(map(is_generator, (random, np.random, random.SystemRandom(), 3, None)))


# Recorder


def recorder(directory: Path, **options: Any) -> tuple[Recorder, Watched]:
    watched = Watched(directory)
    return Recorder(
        watched.writer, options.get("values"), options.get("capture", frozenset())
    ), watched


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.add_(1),
        lambda t: t.data.add_(1),
        lambda t: setattr(t, "data", t.data + 1),
        lambda t: setattr(t, "data", t.data.t()),
        lambda t: setattr(t, "data", t.data[:2]),
        lambda t: setattr(t, "data", t.data.double()),
        lambda t: setattr(t, "data", t.data.view(-1)),
        lambda t: setattr(t, "data", t.data.flip(0)),
        lambda t: setattr(t, "data", torch.empty(0)),
        lambda t: setattr(t, "data", torch.complex(t.data, t.data).conj().imag),
        lambda t: t.untyped_storage().resize_(0),
    ],
)
def test_a_place_is_read_as_any_value_is(tmp_path: Path, change: Callable[[Any], object]) -> None:
    tensor = torch.arange(9.0).reshape(3, 3)
    rows, watched = recorder(tmp_path)
    place, name = TensorSlot(rows.intern("again")), rows.intern("outcome")
    for round_number in range(4):
        if round_number == 2:
            change(tensor)
        rows.again(0, place, tensor)
        rows.outcome(0, name, tensor)
    seen = watched.rows
    again = [(row.meta, row.digest) for row in seen if row.name == "again"]
    assert again == [(row.meta, row.digest) for row in seen if row.name == "outcome"]
    assert again[0] == again[1] != again[2] == again[3]


def test_values_are_saved_where_they_were_asked_for(tmp_path: Path) -> None:
    key = (1, int(Phase.FORWARD), "output", 1)
    torch.manual_seed(0)
    net = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    probe = Probe(
        trace=TraceWriter(tmp_path / "trace"),
        values=ValueWriter(tmp_path / "values"),
        capture=frozenset({key, (1, int(Phase.BACKWARD), "grad.bias", 0)}),
        max_steps=9,
    )
    probe.install()
    try:
        outputs = []
        for number in range(4):
            outputs.append(net(torch.full((1, 3), float(number))))
            outputs[-1].sum().backward()
            if number % 2:
                optimizer.step()
    finally:
        probe.uninstall()
    saved = open_values(tmp_path / "values")
    assert set(saved) == probe.capture
    assert saved[key].data.tobytes() == outputs[3].detach().numpy().tobytes()
