import hashlib
import json
import resource
import threading

import pytest

from fineinstructions.backends.cache import ResponseCache
from fineinstructions.errors import BackendError, ConfigError


def key(number):
    return hashlib.sha256(str(number).encode()).hexdigest()


def test_what_is_put_is_found_again_by_this_and_the_next_process(tmp_path):
    with ResponseCache(tmp_path / "new" / "cache") as cache:
        assert cache.get(key(1)) is None
        cache.put(key(1), {"text": "line\nbreak \u2028 é \ud800"})
        assert cache.get(key(1)) == {"text": "line\nbreak \u2028 é \ud800"}
    with ResponseCache(tmp_path / "new" / "cache") as cache:
        assert len(cache) == 1
        cache.put(key(2), {"text": "two"})
        assert cache.get(key(1))["text"].startswith("line")
    assert len(list((tmp_path / "new" / "cache").iterdir())) == 2


def test_reading_only_leaves_nothing(tmp_path):
    with ResponseCache(tmp_path / "cache") as cache:
        cache.get(key(1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("tail", [b"", b"\0" * 64, b"\xff\xfe{", b'\n{"key":"', b"}\n", b"null\n[]\n"])
def test_a_tail_torn_at_any_byte_loses_only_its_own_entries(tmp_path, tail):
    """Whatever a kill or a power cut leaves behind it, what is found is what was put, and writing goes on."""
    values = {number: {"text": f"{number} \u2028 é\n"} for number in range(3)}
    with ResponseCache(tmp_path / "whole") as cache:
        for number, value in values.items():
            cache.put(key(number), value)
    (segment,) = (tmp_path / "whole").iterdir()
    raw = segment.read_bytes()
    ends = [place + 1 for place, byte in enumerate(raw) if byte == ord("\n")]
    for length in range(ends[0], len(raw) + 1):
        torn = tmp_path / f"torn-{length}"
        torn.mkdir()
        (torn / "1.jsonl").write_bytes(raw[:length] + tail)
        with ResponseCache(torn) as cache:
            found = {number: cache.get(key(number)) for number in values}
            cache.put(key(9), {"text": "nine"})
        for number, end in enumerate(ends):
            whole = (raw[:length] + tail).startswith(raw[:end])
            assert found[number] == (values[number] if whole else None)
        with ResponseCache(torn) as cache:
            assert {number: cache.get(key(number)) for number in values} == found
            assert cache.get(key(9)) == {"text": "nine"}


def test_what_another_process_stores_is_found_by_looking_again(tmp_path):
    """A worker that takes over a dead one's unit asks nothing that was answered already."""
    with ResponseCache(tmp_path) as mine, ResponseCache(tmp_path) as other:
        mine.put(key(1), {"text": "mine"})
        other.put(key(2), {"text": "other"})
        assert mine.get(key(2)) is None
        mine.look_again()
        assert [mine.get(key(number)) for number in (1, 2)] == [{"text": "mine"}, {"text": "other"}]
        mine.put(key(3), {"text": "three"})
        assert [mine.get(key(number)) for number in (1, 2, 3)] == [
            {"text": "mine"},
            {"text": "other"},
            {"text": "three"},
        ]


def test_damaged_lines_in_the_middle_count_as_absent(tmp_path):
    with ResponseCache(tmp_path) as cache:
        for number in range(3):
            cache.put(key(number), {"text": str(number)})
    (segment,) = tmp_path.iterdir()
    lines = segment.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"value":{', b'"value"[[')
    segment.write_bytes(lines[0] + lines[1] + b"\x00\xff noise\n" + b'{"key":"zz"}\n' + lines[2])
    with ResponseCache(tmp_path) as cache:
        assert [cache.get(key(number)) for number in range(3)] == [{"text": "0"}, None, {"text": "2"}]


def test_the_last_reply_under_a_key_counts(tmp_path):
    with ResponseCache(tmp_path) as cache:
        cache.put(key(1), {"text": "old"})
        cache.put(key(1), {"text": "new"})
        assert cache.get(key(1)) == {"text": "new"}


def test_a_line_that_the_disk_takes_only_half_of_costs_only_itself(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with ResponseCache(tmp_path) as cache:
        cache.put(key(1), {"text": "one"})
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
        try:
            with pytest.raises(BackendError, match="cannot be written"):
                cache.put(key(2), {"text": "x" * 1000})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert cache.get(key(2)) is None
        cache.put(key(3), {"text": "three"})
        assert cache.get(key(3)) == {"text": "three"}
    assert max(path.stat().st_size for path in tmp_path.iterdir()) == 500  # a part was taken
    with ResponseCache(tmp_path) as cache:
        assert [cache.get(key(number)) for number in (1, 2, 3)] == [{"text": "one"}, None, {"text": "three"}]


def test_threads_share_one_segment(tmp_path):
    with ResponseCache(tmp_path) as cache:

        def work(start):
            for number in range(start, start + 100):
                cache.put(key(number), {"n": number})
                assert cache.get(key(number)) == {"n": number}

        threads = [threading.Thread(target=work, args=(start,)) for start in (0, 100, 200, 300)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    (segment,) = tmp_path.iterdir()
    assert sorted(json.loads(line)["value"]["n"] for line in segment.read_bytes().splitlines()) == list(range(400))
    with ResponseCache(tmp_path) as cache:
        assert all(cache.get(key(number)) == {"n": number} for number in range(400))


def test_a_folder_that_cannot_be_used_is_said_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with ResponseCache(tmp_path / "file" / "cache") as cache, pytest.raises(BackendError, match="cannot be written"):
        cache.put(key(1), {})
    (tmp_path / "cache" / "segment.jsonl").mkdir(parents=True)
    with pytest.raises(ConfigError, match="cannot be opened"):
        ResponseCache(tmp_path / "cache").get(key(1))
