"""The viewer in a real browser: Debian's chromium without a screen, driven by playwright; one of both for all tests."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from fineinstructions.review.labels import read_labels
from fineinstructions.review.viewer.marking import shown

from .test_viewer import viewing

pytestmark = [pytest.mark.slow, pytest.mark.extra, pytest.mark.xdist_group("viewer")]

PLACES = """
root => {
  const places = [];
  let at = 0;
  const walk = node => {
    if (node.nodeType === Node.TEXT_NODE) { at += [...node.data].length; return; }
    const start = at;
    node.childNodes.forEach(walk);
    if (node.tagName === 'MARK') places.push([start, at]);
  };
  walk(root);
  return {places, text: root.textContent};
}
"""
"""Where marks stand, in code points of the text of an element."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium; make chromium installs it (Debian: apt install chromium)")
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        with contextlib.closing(found):
            yield found


@pytest.fixture(scope="module")
def address(hostile_run: Path) -> Iterator[str]:
    with viewing(hostile_run) as found:
        yield found.rstrip("/")


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """An empty page; an error of a script fails the test."""
    found = browser.new_page(viewport={"width": 1280, "height": 800})
    errors: list[str] = []
    found.on("pageerror", lambda error: errors.append(str(error)))
    found.on("dialog", lambda dialog: errors.append(dialog.message))
    yield found
    found.close()
    assert errors == []


@pytest.fixture(scope="module")
def pairs(hostile_run: Path) -> list[dict[str, Any]]:
    return pq.read_table(hostile_run / "pairs").to_pylist()


@pytest.fixture(scope="module")
def documents(hostile_run: Path) -> dict[str, str]:
    table = pq.read_table(hostile_run.parent / "documents.parquet", columns=["id", "text"]).to_pydict()
    return dict(zip(table["id"], table["text"], strict=True))


def test_from_the_list_by_keys_to_a_pair_and_back(page: Any, address: str, pairs: list[dict[str, Any]]) -> None:
    page.goto(address)
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url("**/pair?at=1")
    assert page.locator("h1").text_content() == pairs[1]["instruction"]
    page.keyboard.press("j")
    page.wait_for_url("**/pair?at=2")
    assert page.locator(".place").text_content() == f"3 of {len(pairs):,}"
    page.keyboard.press("u")
    page.wait_for_url("**/pairs")


def test_search_by_keys(page: Any, address: str, pairs: list[dict[str, Any]]) -> None:
    wanted = pairs[-1]
    page.goto(f"{address}/pairs")
    page.keyboard.press("/")
    page.keyboard.type(wanted["instruction"])
    page.keyboard.press("Enter")
    page.wait_for_url("**/pairs?q=*")
    assert wanted["instruction"] in page.locator(".row .instruction").all_text_contents()


def test_marks_stand_exactly_where_the_offsets_say(
    page: Any, address: str, pairs: list[dict[str, Any]], documents: dict[str, str]
) -> None:
    for pair in pairs[:: max(1, len(pairs) // 12)]:
        page.goto(f"{address}/pair/{pair['pair_id']}")
        text = documents[pair["document_id"]]
        found = page.locator("#document-text").evaluate(PLACES)
        assert found["text"] == shown(text)
        assert found["places"] == [[e["document_start"], e["document_end"]] for e in pair["excerpts"]]
        answer = page.locator("#answer-text").evaluate(PLACES)
        assert answer["text"] == shown(pair["answer"])
        assert answer["places"] == [[e["answer_start"], e["answer_end"]] for e in pair["excerpts"]]


def test_a_quotation_is_brought_into_sight(page: Any, address: str, pairs: list[dict[str, Any]]) -> None:
    deepest = max(pairs, key=lambda pair: pair["excerpts"][0]["document_start"] if pair["excerpts"] else 0)
    page.goto(f"{address}/pair/{deepest['pair_id']}")
    page.keyboard.press("q")
    mark = page.locator("#document-text mark.here").first
    mark.wait_for()
    box, pane = mark.bounding_box(), page.locator(".document").bounding_box()
    assert pane["y"] <= box["y"] < pane["y"] + pane["height"]


def test_scripts_in_documents_are_text(page: Any, address: str, pairs: list[dict[str, Any]]) -> None:
    for path in ("/pairs", f"/pair/{pairs[0]['pair_id']}", "/rejections", "/rejection?at=0", "/pairs?q=<script>"):
        page.goto(address + path)
        assert page.evaluate("window.hit") is None
        assert page.locator("script").count() == 1  # our own
        assert page.locator("main img, main b[onclick]").count() == 0
    page.goto(f"{address}/pair/{pairs[0]['pair_id']}")
    assert "<script>window.hit = 1</script>" in page.locator("#document-text").text_content()


def test_a_slider_tells_what_it_would_keep(page: Any, address: str, pairs: list[dict[str, Any]]) -> None:
    page.goto(f"{address}/thresholds")
    assert page.locator("#kept").text_content() == f"{len(pairs):,}"
    slider = page.locator("#min_cosine")
    slider.focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    page.wait_for_function("location.search.includes('min_cosine')")
    value = float(slider.input_value())
    kept = f"{sum(pair['cosine'] >= value for pair in pairs):,}"
    page.wait_for_function("kept => document.querySelector('#kept').textContent === kept", arg=kept)
    page.wait_for_function("value => location.search.includes(`min_cosine=${value}`)", arg=slider.input_value())
    page.reload()
    assert page.locator("#kept").text_content() == kept


def test_labels_by_key(page: Any, address: str, hostile_run: Path) -> None:
    page.goto(f"{address}/pair?sample=1&at=2")
    pair_id = page.locator("#labels").get_attribute("data-pair")
    page.keyboard.press("2")
    page.locator("#label-state", has_text="saved").wait_for()
    page.keyboard.press("4")
    page.wait_for_function("document.querySelectorAll('#labels [aria-pressed=true]').length === 2")
    page.locator("#label-state", has_text="saved").wait_for()
    assert read_labels(hostile_run)[pair_id].faults == ("hallucination", "unanswerable")
    page.reload()
    assert page.locator("#labels [aria-pressed=true]").count() == 2
    page.keyboard.press("0")
    page.wait_for_function("document.querySelectorAll('#labels [aria-pressed=true]').length === 1")
    page.locator("#label-state", has_text="saved").wait_for()
    assert read_labels(hostile_run)[pair_id].faults == ()


def test_a_phone_and_the_dark(browser: Any, address: str, pairs: list[dict[str, Any]]) -> None:
    phone = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme="dark")
    page = phone.new_page()
    for path in ("/pairs", f"/pair/{pairs[0]['pair_id']}", "/rejections", "/thresholds"):
        page.goto(address + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
        red = page.evaluate("Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])")
        ink = page.evaluate("Number(getComputedStyle(document.body).color.match(/\\d+/)[0])")
        assert red < 60
        assert ink > 200
    phone.close()
