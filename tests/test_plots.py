"""Plots: well-formed, in proportion, harmless with names from anywhere, the same bytes from the same numbers."""

import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fineinstructions.plots import Mark, Series, bars, histogram, line, percent

NUMBERS = st.floats(-1e12, 1e12)
SVG = "{http://www.w3.org/2000/svg}"


def rects(svg: str) -> list[dict[str, float]]:
    found = ET.fromstring(svg).iter(f"{SVG}rect")
    return [{name: float(rect.get(name, "nan")) for name in ("x", "y", "width", "height")} for rect in found]


def test_bars_are_as_long_as_their_values() -> None:
    lengths = [rect["width"] for rect in rects(bars(["a", "b", "c"], {"n": [10, 5, 1]}, title="t"))]
    assert lengths[1] / lengths[0] == pytest.approx(0.5, abs=0.01)
    assert lengths[2] / lengths[0] == pytest.approx(0.1, abs=0.01)


def test_bins_stand_beside_each_other_and_rise_with_their_counts() -> None:
    bins = rects(histogram([0, 1, 2, 4], {"n": [4, 0, 2]}, title="t", x_label="x", y_label="y"))
    assert len(bins) == 2  # an empty bin is not drawn
    assert bins[1]["height"] / bins[0]["height"] == pytest.approx(0.5, abs=0.01)
    assert bins[1]["width"] / bins[0]["width"] == pytest.approx(2, abs=0.05)
    assert bins[0]["y"] + bins[0]["height"] == pytest.approx(bins[1]["y"] + bins[1]["height"], abs=0.11)


def test_a_line_breaks_where_there_is_no_number_and_a_peak_survives_thinning() -> None:
    broken = line([Series("a", range(5), [1, 2, math.nan, 3, 4])], title="t", x_label="x", y_label="y")
    assert len(re.findall("<path", broken)) == 2
    values = [0.0] * 100_000
    values[54_321] = 1.0
    (path,) = re.findall('d="M([^"]+)"', line([Series("a", range(100_000), values)], title="t", x_label="", y_label=""))
    heights = [float(point.split()[1]) for point in path.split("L")]
    assert len(heights) < 3000
    assert heights.count(min(heights)) == 1


def test_powers_of_ten_are_equally_far_apart() -> None:
    svg = line([Series("a", [1, 10, 100], [1, 2, 3])], title="t", x_label="x", y_label="y", log_x=True)
    (path,) = re.findall('d="M([^"]+)"', svg)
    places = [float(point.split()[0]) for point in path.split("L")]
    assert places[2] - places[1] == pytest.approx(places[1] - places[0], abs=0.2)


def test_a_label_beside_the_axis_is_pressed_into_its_length() -> None:
    for label, is_long in (("pairs", False), ("bits per byte of held-out questions", True)):
        drawn = line([Series("a", [0, 1], [0, 1])], title="t", x_label="x", y_label=label)
        (upright,) = [found for found in ET.fromstring(drawn).iter() if found.text == label]
        assert ("textLength" in upright.attrib) == is_long
        assert float(upright.get("textLength", 0)) < 260


def test_names_are_text() -> None:
    hostile = '<script>alert(1)</script>" onload="x\x00\ud800]]>'
    svgs = [
        bars([hostile], {hostile: [1], "b": [2]}, title=hostile),
        line([Series(hostile, [1, 2], [3, 4])], title=hostile, x_label=hostile, y_label=hostile),
        histogram([0, 1], {hostile: [1]}, title="t", x_label="x", y_label="y", marks=[Mark(0.5, hostile)]),
    ]
    for svg in svgs:
        assert not list(ET.fromstring(svg).iter(f"{SVG}script"))
        assert not any("onload" in name for element in ET.fromstring(svg).iter() for name in element.attrib)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=20), st.booleans(), st.booleans())
def test_any_numbers_make_a_plot(points: list[tuple[float, float]], log_x: bool, log_y: bool) -> None:
    xs, ys = [x for x, _ in points], [y for _, y in points]
    one = Series("a", xs, ys, low=[y - 1 for y in ys], high=[y + 1 for y in ys])
    svg = line([one], title="t", x_label="x", y_label="y", log_x=log_x, log_y=log_y)
    assert "nan" not in svg
    assert ET.fromstring(svg).tag == f"{SVG}svg"
    assert svg == line([one], title="t", x_label="x", y_label="y", log_x=log_x, log_y=log_y)


@given(st.lists(st.floats(0, 1e9), max_size=8))
def test_any_values_make_bars_and_bins(values: list[float]) -> None:
    labels = [f"label {n}" for n in range(len(values))]
    intervals = {"a": [(v / 2, v * 2) for v in values]}
    assert len(rects(bars(labels, {"a": values}, title="t", tell=percent, intervals=intervals))) == len(values)
    ET.fromstring(histogram(range(len(values) + 1), {"a": values, "b": values}, title="t", x_label="", y_label=""))


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(ValueError, match="values as labels"):
        bars(["a"], {"n": [1, 2]}, title="t")
    with pytest.raises(ValueError, match="each bin"):
        histogram([0, 1], {"n": [1, 2]}, title="t", x_label="x", y_label="y")
    with pytest.raises(ValueError, match="values as places"):
        line([Series("a", [1], [1, 2])], title="t", x_label="x", y_label="y")
