"""A plan is a sequence of units, whether it lies in memory or in a file."""

import json
from collections.abc import Sequence
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fineinstructions.errors import DataError
from fineinstructions.runs import UnitSpec, single_unit
from fineinstructions.runs.specs import Plan, as_plan, num_rows, ordinals

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
numbers = st.integers(0, 1 << 40)
units = st.builds(UnitSpec, st.just(0), texts, texts, numbers, numbers, numbers, texts)
lists = st.lists(units, max_size=20).map(lambda specs: [replace(s, ordinal=i) for i, s in enumerate(specs)])


@given(lists, st.integers(-25, 25), st.integers(-25, 25), st.lists(st.integers(0, 19)))
def test_a_plan_is_the_list_that_it_was_made_from(
    specs: list[UnitSpec], start: int, stop: int, some: list[int]
) -> None:
    plan = as_plan(specs)
    assert plan == specs
    assert list(plan) == specs
    assert list(reversed(plan)) == specs[::-1]
    assert plan[start:stop] == specs[start:stop]
    assert plan[start:stop] == as_plan(specs)[start:stop]
    chosen = [i for i in some if i < len(specs)]
    part = plan.select(np.array(chosen, np.int64))
    assert part == [specs[i] for i in chosen]
    assert ordinals(part).tolist() == chosen
    assert num_rows(part) == num_rows([specs[i] for i in chosen])
    assert part[1:].unit_ids.to_pylist() == [specs[i].unit_id for i in chosen[1:]]


@given(lists, lists)
def test_plans_are_equal_when_their_units_are(first: list[UnitSpec], second: list[UnitSpec]) -> None:
    assert (as_plan(first) == as_plan(second)) == (first == second)


@given(lists)
def test_a_stored_plan_comes_back(tmp_path_factory: pytest.TempPathFactory, specs: list[UnitSpec]) -> None:
    path = tmp_path_factory.getbasetemp() / "plan.arrow"
    as_plan(specs).save(path)
    assert Plan.load(path) == as_plan(specs)
    path.write_text(json.dumps([astuple(spec) for spec in specs]))
    assert Plan.load_json(path) == specs


def test_a_plan_that_is_replaced_stays_readable(tmp_path: Path) -> None:
    specs = [UnitSpec(i, f"u-{i}", "f", i, i + 1, 1, "f-1") for i in range(5000)]
    as_plan(specs).save(tmp_path / "plan.arrow")
    before = Plan.load(tmp_path / "plan.arrow")
    as_plan([single_unit()]).save(tmp_path / "plan.arrow")
    assert before == specs
    assert Plan.load(tmp_path / "plan.arrow") == [single_unit()]


def damaged(raw: bytes, place: int) -> bytes:
    return raw[:place] + bytes([raw[place] ^ 0x5A]) + raw[place + 1 :]


def test_a_damaged_plan_is_told_and_never_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "plan.arrow"
    as_plan([UnitSpec(i, f"u-{i}", f"f{i % 3}", i, i + 1, 1, f"f-{i % 3}") for i in range(50)]).save(path)
    raw = path.read_bytes()
    for kept in range(0, len(raw), 97):
        path.write_bytes(raw[:kept])
        with pytest.raises(DataError, match="damaged unit list"):
            Plan.load(path)
    for place in range(0, len(raw), 3):
        path.write_bytes(damaged(raw, place))
        try:
            plan = Plan.load(path)
        except DataError:
            continue
        assert len(list(plan)) == len(plan)
    path.write_text("[[0]]")
    with pytest.raises(DataError, match="damaged unit list"):
        Plan.load_json(path)


@pytest.mark.parametrize("specs", [[UnitSpec(1, "u")], [UnitSpec(0, "a"), UnitSpec(2, "b")]])
def test_units_are_numbered_from_zero(specs: Sequence[UnitSpec]) -> None:
    with pytest.raises(ValueError, match="has number"):
        as_plan(specs)
