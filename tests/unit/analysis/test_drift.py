"""Which parameters differ after which steps, by layer; and whose values are saved to tell by how much."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from repro_audit.analysis import drift
from repro_audit.storage.trace import Phase
from tests.traces import Row, trace_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from repro_audit.storage.trace import Trace


def trained(
    *steps: Mapping[str, int], start: Mapping[str, int] | None = None, form: str = "float32[2]"
) -> Trace:
    """A trace in which each step left these parameters with these contents."""
    begun = [
        Row(0, Phase.INIT, name=f"param.{name}", meta=form, digest=bytes([content]) * 16)
        for name, content in (start or {}).items()
    ]
    return trace_of(
        [
            *begun,
            *(
                row
                for step, parameters in enumerate(steps)
                for row in (
                    Row(step, Phase.FORWARD, name="loss", digest=bytes([step]) * 16),
                    *(
                        Row(
                            step,
                            Phase.OPTIMIZER,
                            name=f"param.{name}",
                            meta=form,
                            digest=bytes([content]) * 16,
                        )
                        for name, content in parameters.items()
                    ),
                )
            ),
        ]
    )


def counts(a: Trace, b: Trace) -> dict[str, list[int]]:
    found = drift.drift(a, b)
    assert found is not None
    return {layer.name: [*map(len, layer.differing)] for layer in found.layers}


def test_parameters_are_counted_by_module_and_step() -> None:
    a = trained({"net.0.weight": 1, "net.0.bias": 1, "scale": 1}, {"net.0.weight": 2, "scale": 2})
    b = trained({"net.0.weight": 1, "net.0.bias": 9, "scale": 1}, {"net.0.weight": 9, "scale": 2})
    # After the second step the bias is as the first one left it.
    assert counts(a, b) == {"net.0": [1, 2], "scale": [0, 0]}


def test_equal_parameters_do_not_drift() -> None:
    a = trained({"net.0.weight": 1})
    assert drift.drift(a, a) is None
    assert drift.drift(trace_of([]), trace_of([])) is None


def test_what_one_run_lacks_or_has_in_another_form_differs() -> None:
    a = trained({"net.0.weight": 1, "net.1.weight": 1})
    assert counts(a, trained({"net.0.weight": 1})) == {"net.0": [0], "net.1": [1]}
    assert counts(a, trained({"net.0.weight": 1, "net.1.weight": 1}, form="float64[2]")) == {
        "net.0": [1],
        "net.1": [1],
    }


def test_a_frozen_parameter_differs_from_the_start_on() -> None:
    a = trained({"head.weight": 1}, {"head.weight": 2}, start={"body.weight": 1, "head.weight": 0})
    b = trained({"head.weight": 1}, {"head.weight": 2}, start={"body.weight": 9, "head.weight": 0})
    assert counts(a, b) == {"body": [1, 1], "head": [0, 0]}


def test_of_many_steps_evenly_many_are_shown() -> None:
    a, b = (trained(*({"w": step} for step in range(1, 101)), {"w": last}) for last in (0, 200))
    found = drift.drift(a, b)
    assert found is not None
    assert len(found.steps) == drift.MOST_STEPS
    assert (found.steps[0], found.steps[-1]) == (0, 100)


def test_many_modules_are_shown_by_those_around_them() -> None:
    names = {f"blocks.{block}.{part}.weight": 1 for block in range(30) for part in ("a", "b")}
    a, b = trained(names), trained({**names, "blocks.7.b.weight": 9})
    found = counts(a, b)
    assert len(found) == 30
    assert [name for name, differing in found.items() if any(differing)] == ["blocks.7"]


def test_where_those_are_too_few_or_too_many_several_in_a_row_are_shown_as_one() -> None:
    for path in ("blocks.{}.w", "block{}.w"):
        names = {path.format(block): 1 for block in range(100)}
        found = counts(trained(names), trained({**names, path.format(70): 9}))
        first, last = (path.format(block).removesuffix(".w") for block in (69, 71))
        assert [(name, n) for name, (n,) in found.items() if n] == [(f"{first} to {last}", 1)]
        assert len(found) == 34


def test_ranks_have_layers_of_their_own() -> None:
    def ranks(content: int) -> Trace:
        return trace_of(
            Row(0, Phase.OPTIMIZER, name=f"rank{rank}.param.net.0.weight", digest=bytes([c]) * 16)
            for rank, c in ((0, 1), (1, content))
        )

    assert counts(ranks(1), ranks(2)) == {"rank 0, net.0": [0], "rank 1, net.0": [1]}


def test_small_parameters_are_saved_first_and_no_more_than_there_is_room_for() -> None:
    rows = [
        Row(0, Phase.OPTIMIZER, name="param.small", meta="float32[8]"),
        Row(0, Phase.OPTIMIZER, name="param.number", meta="float32[]"),
        Row(0, Phase.OPTIMIZER, name="param.large", meta=f"float32[{drift.MOST_ELEMENTS - 4},1]"),
        Row(0, Phase.OPTIMIZER, name="state.small.step", meta="float32[]"),
    ]
    step = (0, int(Phase.OPTIMIZER))
    assert drift.keys(trace_of(rows)) == ((*step, "param.number", 0), (*step, "param.small", 0))
    assert len(drift.keys(trace_of(rows[2:]))) == 1
    assert drift.keys(trace_of([])) == ()


def test_of_many_parameters_some_of_each_layer_are_saved_at_every_step() -> None:
    names = {f"blocks.{block}.w{number}": 1 for block in range(20) for number in range(100)}
    found = drift.keys(trained(names, names))
    assert len(found) == drift.MOST_VALUES
    saved = Counter((step, name.split(".")[2]) for step, _, name, _ in found)
    assert set(saved) == {(step, str(block)) for step in (0, 1) for block in range(20)}
    assert max(saved.values()) - min(saved.values()) <= 1
