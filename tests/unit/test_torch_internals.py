"""PyTorch's internals: the installed version has each name that is used, and no other package reaches one."""

from __future__ import annotations

import importlib
import pkgutil

import pytest
import torch
from torch.utils.data._utils import worker

from repro_audit import torch_internals
from repro_audit.errors import MissingInternalError
from repro_audit.torch_internals import Internal, loaders, operators, tensors


def table() -> dict[str, Internal]:
    """Every internal, by the module and the name that it has here."""
    modules = pkgutil.iter_modules(torch_internals.__path__, f"{torch_internals.__name__}.")
    return {
        f"{module.name}.{name}": value
        for module in modules
        for name, value in vars(importlib.import_module(module.name)).items()
        if isinstance(value, Internal)
    }


def lacking() -> list[str]:
    """What the installed PyTorch lacks of them, in words."""
    return [lack for each in table().values() if not each.optional and (lack := each.lack())]


def test_the_installed_pytorch_has_every_internal() -> None:
    assert len(table()) > 60
    assert lacking() == []


def test_each_internal_says_what_it_is_for_and_what_is_lost_without_it() -> None:
    assert all(each.purpose and each.lost for each in table().values())


def test_a_name_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch._C, "_get_tracing_state")
    assert lacking() == [f"PyTorch {torch.__version__} has no torch._C._get_tracing_state"]
    with pytest.raises(MissingInternalError, match=r"torch\._C\._get_tracing_state") as caught:
        tensors.TRACING.get()
    assert caught.value.exit_code == 70
    assert caught.value.why.startswith(f"it serves to {tensors.TRACING.purpose}")


def test_another_signature_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def loop(dataset: object, index_queue: object, worker_id: int) -> None:
        raise NotImplementedError

    monkeypatch.setattr(worker, "_worker_loop", loop)
    (lack,) = lacking()
    assert lack.startswith("torch.utils.data._utils.worker._worker_loop of PyTorch")
    assert lack.endswith("takes no init_fn")


def test_an_attribute_that_no_code_of_the_class_names_is_gone() -> None:
    gone = Internal(place="torch.utils.data:DataLoader._gone", purpose="", lost="", in_objects=True)
    assert gone.lack() == f"PyTorch {torch.__version__} has no torch.utils.data.DataLoader._gone"


def test_a_module_that_is_gone_is_no_other_error() -> None:
    gone = Internal(place="torch._gone:name", purpose="", lost="")
    assert gone.lack() == f"PyTorch {torch.__version__} has no torch._gone.name"


def test_what_sources_need_is_told_with_its_purpose(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = (operators.MODES, loaders.WORKER_LOOP)
    assert torch_internals.lacking(needed) == ""
    monkeypatch.delattr(worker, "_worker_loop")
    lack = torch_internals.lacking(needed)
    assert lack.endswith(f"_worker_loop, which serves to {loaders.WORKER_LOOP.purpose}")


def test_arguments_are_bound_by_name() -> None:
    def function(first: int, second: int) -> None:
        raise NotImplementedError

    bound = torch_internals.bind(function, 1, second=2)
    bound.arguments["first"] = 3
    assert (bound.args, bound.kwargs) == ((3, 2), {})
