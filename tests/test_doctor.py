"""What the doctor tells of a recipe with a ready template index."""

import json
from pathlib import Path
from typing import Any

import yaml
from pipeline_inputs import in_process

from fineinstructions.embedded.encoder import EmbeddedEncoder
from fineinstructions.records import Template
from fineinstructions.templates.index import IndexConfig, build_index, remove_templates


def test_a_ready_index_is_whole_and_of_the_recipes_encoder(tmp_path: Path) -> None:
    templates = [Template(f"t-{i}", "What is <fi>it</fi>?", f"a document about topic {i}", 1, ("q",)) for i in range(9)]
    index = tmp_path / "index"
    build_index(templates, EmbeddedEncoder(), IndexConfig(), index)
    remove_templates(["t-1"], index)

    def checked(**sections: Any) -> tuple[int, dict[str, tuple[bool, str]]]:
        recipe = {"templates": {"index": str(index)}, "documents": {"path": "nowhere.csv"}} | sections
        (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
        code, out, _ = in_process("doctor", tmp_path / "r.yaml", "--json")
        return code, {check["check"]: (check["ok"], check["detail"]) for check in json.loads(out)}

    assert checked()[1]["index"] == (True, f"8 templates in {index}")
    _, found = checked(encoder={"model": "m", "backend": "endpoint", "llm": {"base_url": "http://127.0.0.1:9/v1"}})
    assert not found["index"][0]
    assert "build it again or name that encoder" in found["index"][1]
    code, found = checked(templates={"index": str(index), "bank": "nowhere"})
    assert (code, found["templates"][0]) == (1, False)
    assert "name only one of the two" in found["templates"][1]
    assert found["index"][0]
    assert not found["bank"][0]
    (index / "templates.arrow").write_bytes(b"no table")
    for instantiate in ({}, {"model": "openai"}):
        code, found = checked(instantiate=instantiate, llm={"base_url": "http://127.0.0.1:9/v1"})
        assert code == 1
        assert not found["index"][0]
        assert "build the index again" in found["index"][1]
        assert "encoder" in found
    assert "server" in found
    code, found = checked(templates={"index": str(tmp_path / "nowhere")})
    assert (code, found["index"][0]) == (1, False)
    assert "there is no index here; build one first" in found["index"][1]
