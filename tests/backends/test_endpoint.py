import pytest
from pydantic import Field, ValidationError

from fineinstructions.backends.completion import safe_line
from fineinstructions.backends.endpoint import retry_after_seconds
from fineinstructions.backends.llm import ChatClient
from fineinstructions.backends.llm_config import LlmConfig, LlmOverrides, with_overrides
from fineinstructions.config import Config, from_mapping
from fineinstructions.errors import ConfigError
from fineinstructions.moderation import ModerationEndpoint


def test_address_comes_from_the_recipe_else_the_environment(monkeypatch):
    assert LlmConfig().addresses == ("https://api.openai.com/v1",)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:1/v1/")
    assert LlmConfig().addresses == LlmConfig(base_url=[]).addresses == ("http://localhost:1/v1",)
    assert LlmConfig(base_url="http://localhost:2/v1").addresses == ("http://localhost:2/v1",)
    several = ["http://b/v1", "http://a/v1", "http://b/v1/"]
    assert LlmConfig(base_url=several).addresses == ("http://b/v1", "http://a/v1")


@pytest.mark.parametrize(
    "address", ["http://me:pass@host:1/v1", "https://pass@host?x=1", "https://me:pass@host#a", "me:pass@host"]
)
def test_an_address_with_a_password_is_refused_wherever_it_comes_from(monkeypatch, address):
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    for refused in (lambda: LlmConfig().addresses, lambda: ChatClient(LlmConfig()), lambda: ModerationEndpoint("m")):
        with pytest.raises(ConfigError, match="OPENAI_BASE_URL: must") as caught:
            refused()
        assert "pass@" not in str(caught.value)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with pytest.raises(ConfigError, match=r"queries\.moderation\.base_url: must"):
        ModerationEndpoint("m", address)


def test_a_line_of_a_server_is_safe_to_show():
    assert safe_line("wrong\n key  sk-1 \ud800" + "x" * 400, "sk-1")[:20] == "wrong key *** \ufffdxxxxx"
    assert len(safe_line("x" * 400)) == 300


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("api_key_env", "sk-abc-def"),
        ("base_url", "https://me:pass@host/v1"),
        ("base_url", "localhost:8000"),
        ("base_url", ["http://host/v1", "https://me:pass@host/v1"]),
        ("base_url", ["http://host/v1", ""]),
    ],
)
def test_settings_refuse_keys_and_bad_addresses(field, value):
    with pytest.raises(ValidationError) as caught:
        LlmConfig(**{field: value})
    for shown in [value] if isinstance(value, str) else filter(None, value):
        assert shown not in caught.value.errors()[0]["msg"]


def test_overrides_are_laid_over_the_shared_section():
    shared = LlmConfig(model="big", seed=1)
    assert with_overrides(shared, {"model": "small"}) == LlmConfig(model="small", seed=1)
    with pytest.raises(ConfigError, match="did you mean 'model'"):
        with_overrides(shared, {"modle": "small"})


def test_a_wrong_override_is_found_when_the_recipe_is_read():
    class Stage(Config):
        llm: LlmOverrides = Field(default_factory=dict)

    assert from_mapping({"llm": {"model": "small"}}, Stage).llm == {"model": "small"}
    for wrong, message in (({"modle": "x"}, "did you mean 'model'"), ({"max_tokens": 0}, "greater than or equal to 1")):
        with pytest.raises(ConfigError, match=message):
            from_mapping({"llm": wrong}, Stage)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"retry-after": "2.5"}, 2.5),
        ({"retry-after": " 7 "}, 7.0),
        ({"retry-after": "7", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "99999"}, 60.0),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2099 07:28:00 GMT"}, 60.0),
    ],
)
def test_what_retry_after_asks_for(headers, wait):
    assert retry_after_seconds(headers, 60.0) == wait
