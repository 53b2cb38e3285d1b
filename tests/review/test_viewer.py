"""The viewer over HTTP, without a browser: who is let in, what is refused, that links lead where they say."""

import contextlib
import html
import json
import re
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pipeline_inputs import in_process

from fineinstructions.review.labels import Label, read_labels

pytestmark = [pytest.mark.slow, pytest.mark.extra, pytest.mark.xdist_group("viewer")]
TOKEN = "0123456789abcdef-XYZ"


@contextlib.contextmanager
def viewing(run: Path, *options: str) -> Iterator[str]:
    """A viewer in a process of its own; gives its address."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    script = "from fineinstructions.cli import main; main()"
    words = [sys.executable, "-c", script, "view", str(run), "--port", "0", *options]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().split()[0]
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def address(hostile_run: Path) -> Iterator[str]:
    with viewing(hostile_run) as found:
        yield found


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def ask(address: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str, dict[str, str]]:
    """Status, text and headers of an answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(address.partition("?")[0].rstrip("/") + path, data=body, headers=named)
    try:
        with urllib.request.build_opener(NoRedirect).open(request, timeout=60) as answer:
            return answer.status, answer.read().decode(), {k.lower(): v for k, v in answer.headers.items()}
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), {k.lower(): v for k, v in error.headers.items()}


def links_of(page: str, pattern: str) -> list[str]:
    return [html.unescape(link) for link in re.findall(rf'href="({pattern}[^"]*)"', page)]


def test_every_page_and_every_link_of_it_answers(address: str) -> None:
    seen: set[str] = set()
    waiting = ["/pairs", "/rejections", "/thresholds", "/pairs?sample=1", "/pairs?sort=worst", "/pairs?q=the"]
    while waiting and len(seen) < 60:
        path = waiting.pop(0)
        if path in seen:
            continue
        seen.add(path)
        status, page, headers = ask(address, path)
        assert status == 200, (path, page)
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert "<script>" not in page.replace("&lt;script&gt;", "")
        waiting += [link for link in links_of(page, "/(?:pair|rejection|pairs|rejections)[?/]") if link not in seen][:3]
    assert len(seen) > 30


def test_filters_find_what_the_table_holds(address: str, hostile_run: Path) -> None:
    pairs = pq.read_table(hostile_run / "pairs").to_pylist()
    source = pairs[0]["source"]
    number = sum(pair["source"] == source for pair in pairs)
    assert f"of {number:,}" in ask(address, f"/pairs?source={source}")[1]
    wanted = pairs[len(pairs) // 2]
    words = urllib.parse.quote(wanted["instruction"])
    assert html.escape(wanted["instruction"], quote=False) in ask(address, f"/pairs?q={words}")[1].replace("&#39;", "'")
    assert "No pair is like that" in ask(address, "/pairs?q=there-is-no-such-text")[1]
    rejected = pq.read_table(hostile_run / "rejected", columns=["stage", "reason"]).to_pylist()
    first = rejected[0]
    number = sum(row == first for row in rejected)
    page = ask(address, f"/rejections?stage={first['stage']}&reason={first['reason']}")[1]
    assert f"of {number:,}" in page


def test_mistakes_in_an_address_are_told_in_one_line(address: str) -> None:
    assert ask(address, "/pairs?score=high")[0] == 400
    assert "not a number" in ask(address, "/pairs?score=high")[1]
    assert ask(address, "/pairs?sort=upside")[0] == 400
    assert ask(address, "/pair?at=999999")[0] == 404
    assert ask(address, "/pair/p-none")[0] == 404
    assert ask(address, "/thresholds?min_score=nan")[0] == 400
    assert ask(address, "/static/../app.py")[0] == 404


def test_thresholds_count_what_they_would_keep(address: str, hostile_run: Path) -> None:
    pairs = pq.read_table(hostile_run / "pairs", columns=["judge_score", "excerpt_ratio", "cosine"]).to_pylist()
    limit = sorted(pair["cosine"] for pair in pairs)[len(pairs) // 2]
    kept = sum(pair["cosine"] >= limit for pair in pairs)
    page = ask(address, f"/thresholds?min_cosine={limit!r}")[1]
    assert re.findall(r'id="kept">([\d,]+)<', page) == [f"{kept:,}"]
    rejected = pq.read_table(hostile_run / "rejected", columns=["reason", "value"]).to_pylist()
    back = sum(row["reason"] == "low_score" and row["value"] >= 1 for row in rejected)
    assert re.findall(r'id="back"[^>]*>([\d,]+)<', ask(address, "/thresholds?min_score=1")[1]) == [f"{back:,}"]


def test_other_host_names_and_other_pages_are_refused(address: str) -> None:
    assert ask(address, "/pairs", Host="evil.example")[0] == 421
    assert ask(address, "/pairs", Host="localhost:1")[0] == 200
    body = json.dumps({"pair_id": "p-x", "faults": []}).encode()
    assert ask(address, "/labels", body)[0] == 403
    assert ask(address, "/labels", body, Origin="http://evil.example")[0] == 403
    assert ask(address, "/labels", body, Origin=address.rstrip("/"))[0] == 404
    assert ask(address, "/labels", b"[]", Origin=address.rstrip("/"))[0] == 400
    assert ask(address, "/labels", b"x" * 100_000, Origin=address.rstrip("/"))[0] == 413


def document_of(run: Path, pair_id: str) -> str:
    rows = pq.read_table(run / "pairs", columns=["pair_id", "document_id"]).to_pylist()
    return next(str(row["document_id"]) for row in rows if row["pair_id"] == pair_id)


def test_a_label_is_kept_and_the_last_one_counts(address: str, hostile_run: Path) -> None:
    pair_id = pq.read_table(hostile_run / "pairs", columns=["pair_id"])["pair_id"][3].as_py()
    for faults in (["hallucination", "factual_error"], []):
        body = json.dumps({"pair_id": pair_id, "faults": faults}).encode()
        assert ask(address, "/labels", body, Origin=address.rstrip("/"))[0] == 200
    assert read_labels(hostile_run)[pair_id] == Label(pair_id, ())
    ids = pq.read_table(hostile_run / "pairs", columns=["pair_id"])["pair_id"].to_pylist()
    assert len(ids) < 100, "all of them are in the audit's sample"
    labelled = [one for one in ids if one in read_labels(hostile_run)]  # other tests label what is no pair of this run
    page = ask(address, f"/pairs?sample=1&document={urllib.parse.quote(document_of(hostile_run, pair_id))}")[1]
    assert f"{len(labelled)} of {len(ids)} labelled." in page
    assert 'class="labelled fine">nothing wrong' in page
    body = json.dumps({"pair_id": pair_id, "faults": ["boring"]}).encode()
    status, text, _ = ask(address, "/labels", body, Origin=address.rstrip("/"))
    assert status == 400
    assert "is no fault" in text


def test_a_token_is_asked_for_where_others_could_read(hostile_run: Path) -> None:
    with viewing(hostile_run, "--host", "0.0.0.0", "--token", TOKEN) as found:
        assert found.endswith(f"?token={TOKEN}")
        address = found.replace("0.0.0.0", "127.0.0.1")
        assert ask(address, "/pairs")[0] == 401
        assert ask(address, "/pairs", Authorization="Bearer wrong")[0] == 401
        status, _, headers = ask(address, f"/pairs?score=5&token={TOKEN}")
        assert (status, headers["location"]) == (303, "/pairs?score=5")
        cookie = headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert ask(address, "/pairs", Cookie=cookie.partition(";")[0])[0] == 200
        assert ask(address, "/pairs", Authorization=f"Bearer {TOKEN}")[0] == 200
        assert ask(address, "/pairs", Host="evil.example", Authorization=f"Bearer {TOKEN}")[0] == 421


def test_mistakes_are_one_line(hostile_run: Path, address: str, tmp_path: Path) -> None:
    port = address.rstrip("/").rpartition(":")[2]
    cases = {
        (str(tmp_path / "none"), "--port", "0"): "no run here",
        (str(hostile_run), "--port", port): "cannot listen",
        (str(hostile_run), "--host", "0.0.0.0"): "give --token",
        (str(hostile_run), "--token", "short"): "16 to 200",
    }
    for words, line in cases.items():
        code, _, errors = in_process("view", *words)
        assert (code, len(errors.strip().splitlines())) == (2, 1), errors
        assert line in errors
