"""Which encoder a recipe means.

In: the sections ``encoder`` and ``llm``. Out: an `Encoder` that has loaded nothing large yet, so that the driver of a
run can ask it which one it is.
"""

from fineinstructions.backends.encoder import EMBEDDED, Encoder, EncoderConfig
from fineinstructions.backends.llm_config import LlmConfig
from fineinstructions.errors import ConfigError


def open_encoder(config: EncoderConfig, llm: LlmConfig) -> Encoder:
    """The encoder of a recipe.

    Args:
        config: Which one, and how to run it.
        llm: The server, for encoders behind one.

    Raises:
        ConfigError: If there is no such encoder, or its extra is not installed.
    """
    if config.engine == "endpoint":
        from fineinstructions.backends.endpoint_encoder import EndpointEncoder

        return EndpointEncoder(config, llm)
    if config.engine == "sentence-transformers":
        from fineinstructions.backends.sentence_encoder import SentenceEncoder

        return SentenceEncoder(config)
    if config.model != EMBEDDED:
        raise ConfigError(f"encoder.backend: embedded has no model {config.model}; leave out the one or the other")
    from fineinstructions.embedded.encoder import EmbeddedEncoder

    return EmbeddedEncoder()
