import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fineinstructions.silver.choose import even_shares, lowest, luck, split_of, stratum_name

SUPPLY = st.dictionaries(st.text(max_size=3), st.integers(0, 50), max_size=8)


@given(SUPPLY, st.integers(0, 200))
def test_shares_are_as_even_as_the_supply_allows(supply, total):
    shares = even_shares(supply, total)
    assert shares.keys() == supply.keys()
    assert sum(shares.values()) == min(total, sum(supply.values()))
    assert all(0 <= shares[s] <= supply[s] for s in supply)
    short = [shares[s] for s in supply if shares[s] < supply[s]]
    assert not short or max(shares.values()) - min(short) <= 1, "who could give more gives no less than anybody"


@given(st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=30), st.integers(0, 40))
def test_the_lowest_numbers_are_drawn(numbers, count):
    last = lowest(np.array(numbers, np.uint64), count)
    assert sorted(n for n in numbers if n <= last) == sorted(numbers)[:count]


def test_a_larger_draw_holds_the_smaller_one():
    names = [f"q-{n}" for n in range(200)]
    numbers = np.array([luck(7, "rows", name) for name in names], np.uint64)
    small, large = ({n for n in names if luck(7, "rows", n) <= lowest(numbers, count)} for count in (20, 90))
    assert (len(small), len(large)) == (20, 90)
    assert small < large
    assert {n for n in names if luck(8, "rows", n) <= lowest(numbers, 20)} != small


def test_splits_depend_on_seed_kind_and_id_and_have_their_share():
    names = [f"d-{n}" for n in range(4000)]
    split = [split_of(1, "document", name, 0.1) for name in names]
    assert 320 < split.count("validation") < 480
    assert split != [split_of(2, "document", name, 0.1) for name in names]
    assert split != [split_of(1, "query", name, 0.1) for name in names]
    assert {split_of(1, "document", name, 0.0) for name in names} == {"train"}


@pytest.mark.parametrize(("value", "name"), [(0, "0-3"), (3, "0-3"), (4, "4-9"), (9, "4-9"), (10, "10+"), (99, "10+")])
def test_strata_have_readable_names(value, name):
    assert stratum_name(value, (4, 10)) == name
    assert stratum_name(value, ()) == "0+"
