"""The first cause is found in events made by hand: each rule, and the case beside it to which it does not apply."""

from __future__ import annotations

import pytest

from repro_audit.analysis.compare import Mismatch
from repro_audit.analysis.pinpoint import Cause, Run, address, pinpoint
from repro_audit.analysis.pinpoint.align import Span, align
from repro_audit.analysis.pinpoint.items import MAX_ITEMS
from repro_audit.storage.events import Kind, Line
from repro_audit.storage.reads import ENTROPY, Suspect
from repro_audit.storage.trace import Phase
from tests.details import FILE, Row, detail_of

LOSS = Mismatch(
    step=0,
    phase=Phase.FORWARD,
    name="loss",
    occurrence=0,
    kind="value",
    detail="",
    meta_a="float32[]",
    meta_b="float32[]",
)
BATCH = Mismatch(
    step=0,
    phase=Phase.DATA,
    name="batch.0",
    occurrence=0,
    kind="value",
    detail="",
    meta_a="float32[2]",
    meta_b="float32[2]",
)


def line(number: int, names: str, before: str, after: str, **more: object) -> Row:
    """A line that names `names`, any of which it may assign to, and behind a bar what it reads besides."""
    named, _, reads = names.partition("|")
    meta = Line(
        names=tuple(named.split()), reads=tuple(reads.split()), sets=tuple(named.split())
    ).text()
    return Row(Kind.LINE, "", number, before, after, meta=meta, **more)  # type: ignore[arg-type]  # fields of Row


def op(number: int, name: str, before: str, after: str, **more: object) -> Row:
    return Row(Kind.OP, f"aten::{name}", number, before, after, **more)  # type: ignore[arg-type]  # likewise


def draw(number: int, before: str, after: str, meta: str = "draw", **more: object) -> Row:
    return Row(Kind.DRAW, "python", number, before, after, meta, **more)  # type: ignore[arg-type]  # likewise


def found(
    a: list[Row],
    b: list[Row],
    first: Mismatch = LOSS,
    fetch: str | None = None,
    workers: tuple[dict[str, list[Row]], dict[str, list[Row]]] = ({}, {}),
    suspect: Suspect | None = None,
) -> Cause:
    runs = run(a, workers[0]), run(b, workers[1], "other", "ids")
    cause = pinpoint(*runs, first, fetch=fetch, suspect=suspect)
    assert cause is not None
    return cause


def run(main: list[Row], workers: dict[str, list[Row]], *texts: str) -> Run:
    return Run(
        main=detail_of(main, *texts),
        workers={name: detail_of(rows, *texts) for name, rows in workers.items()},
    )


def line_of(cause: Cause) -> int:
    site = cause.place.either.site
    assert site is not None
    return site.line


def partners(a: list[Row], b: list[Row]) -> list[int]:
    alignment = align(Span.of(detail_of(a)), Span.of(detail_of(b, "other", "ids")))
    found: list[int] = alignment.partner.tolist()
    return found


# A forward of three ops, a line each: y = x * w; z = relu(y); return sum(z).
def forward(value: str = "", *, first: str = "", line_of_relu: int = 2) -> list[Row]:
    """All equal but what comes of `value`, which the relu makes, or of `first`, which the product makes."""
    return [
        op(1, "mul", "x", f"y{first}"),
        line(1, "y x w", "x w", f"y{first}"),
        op(line_of_relu, "relu", f"y{first}", f"z{first}{value}"),
        line(line_of_relu, "z y", f"y{first}", f"z{first}{value}"),
        op(3, "sum", f"z{first}{value}", f"s{first}{value}"),
        line(3, "z", f"z{first}{value}", f"z{first}{value}"),
        Row(Kind.LINE, "return", 3, "", f"s{first}{value}"),
    ]


# Alignment


def test_equal_events_are_aligned_one_by_one() -> None:
    assert partners(forward(), forward("!")) == list(range(7))


def test_an_inserted_and_a_missing_row_shift_nothing() -> None:
    rows = forward()
    longer = [*rows[:2], op(9, "neg", "q", "r"), *rows[2:]]
    assert partners(rows, longer) == [0, 1, 3, 4, 5, 6, 7]
    assert partners(longer, rows) == [0, 1, -1, 2, 3, 4, 5, 6]


def test_reordered_rows_are_paired() -> None:
    rows = forward()
    assert partners(rows, [*rows[:2], rows[3], rows[2], *rows[4:]]) == [0, 1, 3, 2, 4, 5, 6]


def test_one_round_more_of_a_loop_is_named_by_its_content() -> None:
    loop = [op(5, "add", f"v{number}", f"w{number}") for number in range(12)]
    extra = op(5, "add", "one", "more")
    expected = [0, 1, 2, *range(4, 13)]
    assert partners(loop, [*loop[:3], extra, *loop[3:]]) == expected
    assert partners([*loop[:3], extra, *loop[3:]], loop) == [0, 1, 2, -1, *range(3, 12)]


def test_values_that_differ_are_no_shift() -> None:
    loop = [op(5, "add", f"v{number}", f"w{number}") for number in range(12)]
    other = [op(5, "add", f"v{number}", f"w{number}!") for number in range(12)]
    assert partners(loop, [*other, op(6, "neg", "", "")]) == list(range(12))


# The first row that makes something else of equal values


def test_nothing_differs() -> None:
    assert pinpoint(run(forward(), {}), run(forward(), {}), LOSS) is None


def test_an_op_is_blamed_before_its_line() -> None:
    cause = found(forward(), forward("!"))
    assert (cause.kind, line_of(cause)) == ("op", 2)
    assert cause.event is not None
    assert cause.event.name == "aten::relu"
    assert [place.either.name for place in cause.where_from] == [
        "aten::relu",
        "",
        "aten::sum",
    ]
    assert not cause.independent


def test_a_line_is_blamed_where_no_op_ran() -> None:
    a = [line(1, "scale", "", "1"), *forward()]
    b = [line(1, "scale", "", "2"), *forward()]
    cause = found(a, b)
    assert (cause.kind, line_of(cause)) == ("line", 1)


def test_what_a_line_reads_is_told() -> None:
    cause = found([line(1, "t|clock", "", "1")], [line(1, "t|clock", "", "2")])
    assert cause.detail == "it reads the clock"


def test_a_second_cause_is_independent_and_a_consequence_is_not() -> None:
    race = [
        op(0, "a", "", "1", phase=Phase.BACKWARD, module="one"),
        op(0, "b", "", "1", phase=Phase.BACKWARD, module="two"),
        op(0, "c", "1", "2", phase=Phase.BACKWARD, module="two"),
    ]
    other = [
        op(0, "a", "", "!", phase=Phase.BACKWARD, module="one"),
        op(0, "b", "", "!", phase=Phase.BACKWARD, module="two"),
        op(0, "c", "!", "2!", phase=Phase.BACKWARD, module="two"),
    ]
    gradient = Mismatch(
        step=0,
        phase=Phase.BACKWARD,
        name="grad.one",
        occurrence=0,
        kind="value",
        detail="",
        meta_a="",
        meta_b="",
    )
    cause = found(race, other, gradient)
    assert cause.place.either.module == "one"
    assert [each.place.either.name for each in cause.independent] == ["aten::b"]


def test_inputs_that_differ_already_ask_for_more_steps() -> None:
    cause = found(forward()[2:], forward(first="!")[2:])
    assert cause.incomplete
    assert line_of(cause) == 2
    assert not found(forward(), forward(first="!")).incomplete


# What comes to nothing is not blamed


def test_a_clock_that_is_only_printed_is_set_aside() -> None:
    def rows(now: str, value: str) -> list[Row]:
        return [
            line(10, "start time", "time", f"time {now}"),
            *forward(value)[:4],
            line(11, "took start time", f"start {now}", f"took {now}"),
            line(12, "print took", f"took {now}", f"took {now}"),
            *forward(value)[4:],
        ]

    cause = found(rows("1", ""), rows("2", "!"))
    assert (cause.kind, line_of(cause)) == ("op", 2)
    assert not cause.independent
    alone = found(rows("1", ""), rows("2", ""))
    assert line_of(alone) == 10


def test_a_cause_far_behind_a_clock_is_not_missed() -> None:
    def rows(now: str, value: str) -> list[Row]:
        quiet = [line(20 + number % 50, "k", "", "") for number in range(3 * MAX_ITEMS)]
        return [line(10, "start time", "time", f"time {now}"), *quiet, *forward(value)]

    assert line_of(found(rows("1", ""), rows("2", "!"))) == 2


def test_a_clock_that_is_computed_with_is_blamed() -> None:
    def rows(now: str) -> list[Row]:
        return [
            line(1, "start time", "time", f"time {now}"),
            line(2, "x start", f"x {now}", f"x{now}"),
            op(3, "relu", f"x{now}", f"y{now}"),
            line(3, "y x", f"x{now}", f"y{now}"),
            op(4, "race", "y", f"r{now}"),
            op(5, "sum", f"y{now}", f"s{now}"),
            line(5, "y", f"y{now}", f"y{now}"),
        ]

    assert line_of(found(rows("1"), rows("2"))) == 1


def test_a_name_that_was_assigned_anew_carries_nothing() -> None:
    def rows(now: str, value: str) -> list[Row]:
        return [
            line(1, "y time", "time", f"time {now}"),
            line(2, "y", "equal", "equal"),
            *forward(value),
        ]

    assert line_of(found(rows("1", ""), rows("2", "!"))) == 2


def test_a_value_goes_through_a_call() -> None:
    def rows(value: str, noise: str) -> list[Row]:
        return [
            line(20, "t", "", f"t{noise}", function="noise"),
            Row(Kind.LINE, "return", 20, "", "", function="noise"),
            line(10, "noise", "", ""),
            line(30, "k", "", f"k{value}", function="scale"),
            line(31, "k", f"k{value}", f"k{value}", function="scale"),
            Row(Kind.LINE, "return", 31, f"k{value}", f"k{value}", function="scale"),
            line(11, "k scale", "", f"k{value}"),
            op(12, "mul", f"k{value}", f"y{value}"),
            line(12, "k y", f"k{value}", f"y{value}"),
        ]

    assert line_of(found(rows("", ""), rows("!", "!"))) == 30


# Random draws


def chosen(second: str, function: str = "<listcomp>", between: int = 0) -> list[Row]:
    """`kept = [p for p in paths if is_kept(p)]`: of three, one is kept or not, which no name in there tells."""
    one_round = [
        [
            line(1, "p", "p", "p", function="is_kept"),
            Row(Kind.LINE, "return", 1, "p", kept, function="is_kept"),
            line(3, "p", f"p{number}", f"p{number + 1}", function=function),
            *([line(between, "p", "p", "p", function=function)] if between else []),
        ]
        for number, kept in enumerate(("yes", second, "no"))
    ]
    return [
        *(row for rows in one_round for row in rows),
        line(3, "p", "p3", "p3", function=function),
        Row(Kind.LINE, "return", 3, "p3", f"list-{second}", function=function),
        line(3, "kept", "", f"kept-{second}", function="build"),
        op(4, "stack", f"kept-{second}", f"x-{second}", function="build"),
        line(4, "x kept", f"kept-{second}", f"x-{second}", function="build"),
    ]


def test_what_a_comprehension_chose_comes_of_what_it_called() -> None:
    cause = found(chosen("yes"), chosen("no"))
    assert (cause.kind, line_of(cause)) == ("line", 1)
    assert not cause.independent


def test_a_line_between_two_rounds_ends_what_they_gather() -> None:
    """Such a loop has names for what it keeps."""
    cause = found(chosen("yes", "build", between=2), chosen("no", "build", between=2))
    assert line_of(cause) != 1


def drawn(state: str) -> list[Row]:
    return [
        draw(1, state, f"{state}+"),
        line(1, "scale random", "random", f"scale {state}"),
        op(2, "mul", f"x {state}", f"y {state}"),
        line(2, "y x scale", f"x {state}", f"y {state}"),
    ]


def test_a_draw_that_one_run_made_more() -> None:
    cause = found(drawn("s0"), [draw(7, "s0", "s0+"), *drawn("s0+")])
    assert (cause.kind, cause.generator, line_of(cause)) == ("draw", "python", 7)
    assert cause.event is None
    assert cause.detail.startswith("drew more")
    sites = [place.either.site for place in cause.where_from]
    assert [site.line for site in sites if site is not None] == [7, 1, 2]


def test_a_generator_that_started_elsewhere() -> None:
    cause = found(drawn("s0"), drawn("s1"))
    assert (cause.kind, line_of(cause)) == ("draw", 1)
    assert cause.detail.startswith("started from another state")


def test_a_seed_that_only_one_run_set() -> None:
    seed = draw(7, "s0", "s9", "seed")
    cause = found([draw(6, "s", "s0"), *drawn("s0")], [draw(6, "s", "s0"), seed, *drawn("s9")])
    assert (cause.kind, line_of(cause)) == ("draw", 7)
    assert cause.detail.startswith("was reseeded")


def test_a_seed_that_differs() -> None:
    cause = found(
        [draw(7, "p", "s0", "seed"), *drawn("s0")], [draw(7, "q", "s9", "seed"), *drawn("s9")]
    )
    assert (cause.kind, line_of(cause)) == ("draw", 7)
    assert cause.detail == "was reseeded: with another seed in each run"


def test_a_generator_that_was_made_with_another_state() -> None:
    a = [draw(7, "", "s0", "made"), *drawn("s0")]
    b = [draw(7, "", "s9", "made"), *drawn("s9")]
    cause = found(a, b)
    assert (cause.kind, line_of(cause)) == ("draw", 7)
    assert cause.detail == "was made with another state in each run"


def test_a_generator_that_moved_unseen() -> None:
    cause = found([draw(6, "s", "s0"), *drawn("s0")], [draw(6, "s", "s0"), *drawn("s1")])
    assert (cause.kind, line_of(cause)) == ("draw", 1)
    assert "not seen" in cause.detail


def test_a_line_that_drew_more_numbers() -> None:
    cause = found([draw(6, "s", "s0"), *drawn("s0")], [draw(6, "s", "s1"), *drawn("s1")])
    assert (cause.kind, line_of(cause)) == ("draw", 6)
    assert cause.detail == "drew more in one run than in the other"


def test_an_op_of_chance_whose_draw_is_told_at_the_end_of_its_line() -> None:
    def rows(state: str, name: str) -> list[Row]:
        return [
            op(2, name, "x", f"y {state}"),
            op(2, "mul", f"y {state}", f"z {state}"),
            draw(2, state, f"{state}+"),
            line(2, "x z", "x", f"x {state}"),
        ]

    cause = found(rows("s0", "bernoulli"), rows("s1", "bernoulli"))
    assert (cause.kind, line_of(cause)) == ("draw", 2)
    assert found(rows("s0", "mm"), rows("s1", "mm")).kind == "op"


def test_a_draw_from_an_equal_state_is_not_to_blame() -> None:
    a, b = drawn("s0"), drawn("s0")
    b[1] = line(1, "scale random", "random", "scale other")
    assert found(a, b).kind == "line"


def test_an_op_that_draws() -> None:
    def rows(state: str) -> list[Row]:
        return [op(2, "bernoulli_", "x", f"x {state}"), draw(2, state, f"{state}+")]

    cause = found(rows("s0"), [draw(4, "s0", "s1"), *rows("s1")])
    assert (cause.kind, line_of(cause)) == ("draw", 4)


# Files


def loaded(content: str, wrote: str = "w") -> list[Row]:
    return [
        Row(Kind.FILE, "/data/cache", 5, "", "", wrote),
        Row(Kind.FILE, "/data/cache", 1, "", content, "r"),
        line(1, "scale open", "open", f"scale {content}"),
    ]


def test_a_file_with_another_content() -> None:
    cause = found(loaded("one"), loaded("two")[1:])
    assert (cause.kind, cause.path, line_of(cause)) == ("file", "/data/cache", 1)
    assert f"in the pinned run it was written by {FILE}:5" in cause.detail
    assert "the varied run found it as it was" in cause.detail


def test_a_file_with_the_same_content_is_not_to_blame() -> None:
    b = loaded("one")
    b[2] = line(1, "scale open", "open", "scale other")
    assert found(loaded("one"), b).kind == "line"


# Structure


def test_an_op_more_is_the_finding() -> None:
    rows = forward()
    b = [*rows[:2], op(9, "neg", "y", "y!"), line(9, "y", "y", "y!"), *forward("!")[2:]]
    b[4] = op(2, "relu", "y!", "z!")
    b[5] = line(2, "z y", "y!", "z!")
    cause = found(rows, b)
    assert (cause.kind, line_of(cause)) == ("order", 9)
    assert cause.event is None
    assert cause.other is not None
    assert cause.other.name == "aten::neg"
    assert f"is {FILE}:1" in cause.detail
    back = found(b, rows)
    assert (back.kind, line_of(back), back.other) == ("order", 9, None)


def test_a_branch_that_a_draw_decided() -> None:
    def rows(state: str, *, taken: bool) -> list[Row]:
        branch = [op(9, "neg", "y", "-y"), line(9, "y", "y", "-y")] if taken else []
        return [draw(8, state, f"{state}+"), line(8, "random", "random", "random"), *branch]

    a, b = rows("s0", taken=False), rows("s1", taken=True)
    cause = found([*a, op(3, "sum", "y", "s")], [*b, op(3, "sum", "-y", "s!")])
    assert (cause.kind, line_of(cause)) == ("draw", 8)


def test_a_branch_that_a_value_decided_follows_from_it() -> None:
    def rows(flag: str, *, taken: bool) -> list[Row]:
        branch = [op(9, "neg", "y", "-y"), line(9, "y", "y", "-y")] if taken else []
        value = "-y" if taken else "y"
        return [
            line(7, "flag", "", flag),
            line(8, "flag", flag, flag),
            *branch,
            op(3, "sum", value, f"s{value}"),
            line(3, "y", value, value),
        ]

    cause = found(rows("no", taken=False), rows("yes", taken=True))
    assert (cause.kind, line_of(cause)) == ("line", 7)
    assert not cause.independent


def test_another_order() -> None:
    one, two = op(5, "add_", "p", "q", module="one"), op(5, "add_", "q", "r", module="two")
    rest = [op(6, "sum", f"{number}", f"{number}") for number in range(9)]
    cause = found([one, two, *rest], [two, one, *rest])
    assert cause.kind == "order"
    assert "another place" in cause.detail


# Batches


def fetching(value: str, step: int, name: str = "0.0: 4, 7") -> list[Row]:
    common = {"phase": Phase.DATA, "step": step}

    def fetch(name: str, meta: str) -> Row:
        return Row(Kind.FETCH, name, 0, "", "", meta, phase=Phase.DATA, step=step)

    def item(index: str, value: str) -> list[Row]:
        return [
            fetch(index, "sample"),
            line(40, "x noise", f"x{index}", f"x{index}{value}", function="get", **common),
            Row(
                Kind.LINE,
                "return",
                41,
                f"x{index}{value}",
                f"x{index}{value}",
                function="get",
                step=step,
                phase=Phase.DATA,
            ),
        ]

    return [fetch(name, ""), *item("4", ""), *item("7", value), fetch(name, "end")]


def test_a_sample_is_found_whichever_process_fetched_it() -> None:
    workers = {
        "worker-0-0-0": fetching("", 0, "0.0: 1, 2"),
        "worker-0-0-1": fetching("!", 0),
    }
    cause = found(fetching("", 3), [], BATCH, workers=({}, workers))
    assert (cause.kind, line_of(cause)) == ("line", 40)
    assert (cause.process, cause.other_process) == ("main", "worker-0-0-1")
    assert cause.sample is not None
    assert (cause.sample.fetch, cause.sample.position, cause.sample.index) == ("0.0: 4, 7", 1, "7")


def test_other_indices_lead_to_what_decided_about_them() -> None:
    def rows(order: str, value: str) -> list[Row]:
        common = {"function": "sampler", "phase": Phase.DATA}
        return [
            line(50, "order", "", order, **common),
            Row(Kind.LINE, "return", 50, order, order, function="sampler", phase=Phase.DATA),
            *fetching(value, 0, f"0.0: {order}"),
        ]

    cause = found(rows("4, 7", ""), rows("7, 4", "!"), BATCH)
    assert line_of(cause) == 50
    assert line_of(found(rows("4, 7", ""), rows("4, 7", "!"), BATCH)) == 40


@pytest.mark.parametrize("second", ["worker-0-0-0", "worker-0-0-1"])
def test_draws_are_followed_within_one_process_only(second: str) -> None:
    def rows(state: str) -> list[Row]:
        rows = fetching(f" {state}", 0)
        drawn = draw(40, state, f"{state}+", function="get", phase=Phase.DATA)
        return [*rows[:5], drawn, *rows[5:]]

    workers = {"worker-0-0-0": rows("s0")}, {second: rows("s1")}
    cause = found([], [], BATCH, workers=workers)
    assert (cause.kind, line_of(cause)) == ("draw", 40)
    assert ("can not be compared" in cause.detail) == (second != "worker-0-0-0")
    assert cause.sample is not None
    assert cause.sample.index == "7"


# Addresses


def test_an_address_counts_what_is_the_same() -> None:
    rows = [op(1, "add", "", ""), line(1, "x", "", ""), op(1, "add", "", "", module="m")]
    detail = detail_of([*rows, op(1, "add", "x", "y"), op(1, "add", "", "", step=1)])
    site = rows[0].site
    assert address(detail, 3) == (0, 2, f"aten::add|{site}|", 1)
    assert address(detail, 2) == (0, 2, f"aten::add|{site}|m", 0)
    assert address(detail, 4) == (1, 2, f"aten::add|{site}|", 0)


def test_what_a_batch_is_made_by_is_no_sample() -> None:
    def rows(value: str) -> list[Row]:
        *fetched, end = fetching("", 0)
        collate = Row(Kind.FETCH, "", 0, "", "", "collate", phase=Phase.DATA)
        made = line(60, "x", "x", f"x{value}", function="collate", phase=Phase.DATA)
        return [*fetched, collate, made, end]

    cause = found(rows(""), rows("!"), BATCH)
    assert line_of(cause) == 60
    assert cause.sample is not None
    assert (cause.sample.fetch, cause.sample.position) == ("0.0: 4, 7", None)


def test_what_takes_batches_out_of_a_worker_is_no_cause() -> None:
    """Not the seeds that the worker starts with, nor the memory that a batch is put into: no line has them."""

    def rows(value: str, *room: Row) -> list[Row]:
        fetched = fetching(value, 0)
        drawn = draw(40, f"s{value}", f"s{value}+", function="get", phase=Phase.DATA)
        stack = op(0, "stack", f"x7{value}", f"batch{value}", phase=Phase.DATA)
        return [*fetched[:5], drawn, *fetched[5:-1], *room, stack, fetched[-1]]

    seeds = [
        Row(Kind.DRAW, generator, 0, "", "w", "seed", phase=Phase.DATA)
        for generator in ("torch", "numpy", "python")
    ]
    room = op(0, "empty", "", "room", phase=Phase.DATA)
    workers = {"worker-0-0-0": [*seeds, *rows("!", room)]}
    cause = found(rows(""), [], BATCH, workers=({}, workers))
    assert (cause.kind, line_of(cause), cause.generator) == ("draw", 40, "python")
    assert cause.independent == ()


# Lines that were seen to read what a source varies


NAMED = [*(line(number, "made", "", "object") for number in (5, 6)), line(7, "x", "x", "x")]
"""What a library drew for them does not show in their values."""
ENDS, OTHERWISE = op(20, "mul", "x", "y"), op(20, "mul", "v", "w")
PRUNED = [draw(9, "g", "h", "seed"), line(9, "", "", "")]


def reading(*lines: int) -> Suspect:
    return Suspect(reads=frozenset((ENTROPY,)), lines=frozenset((FILE, each) for each in lines))


@pytest.mark.parametrize("lines", [(5,), (5, 6)])
def test_what_one_run_alone_does_is_decided_by_a_line_that_read_what_is_varied(
    lines: tuple[int, ...],
) -> None:
    cause = found([*NAMED, *PRUNED, ENDS], [*NAMED, OTHERWISE], suspect=reading(*lines))
    assert (cause.kind, line_of(cause)) == ("reading", 5)
    assert (f"and so does {FILE}:6" in cause.detail) == (len(lines) == 2)


@pytest.mark.parametrize("suspect", [None, reading(40)])
def test_where_no_line_was_seen_to_read_it_the_draw_of_one_run_is_named(
    suspect: Suspect | None,
) -> None:
    cause = found([*NAMED, *PRUNED, ENDS], [*NAMED, OTHERWISE], suspect=suspect)
    assert (cause.kind, line_of(cause)) == ("draw", 9)


def test_a_difference_that_both_runs_make_at_a_line_is_not_a_readers() -> None:
    rows = [*NAMED, *forward()], [*NAMED, *forward("!")]
    cause = found(*rows, suspect=reading(5))
    assert (cause.kind, line_of(cause)) == ("op", 2)
