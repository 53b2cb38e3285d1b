"""The models of one process: what a recipe names, each built when it is first asked for.

In: the setup of a run. Out: encoder, index, gate, sampler, the models of the stages, and what they are called. The
decision to question: one object builds everything, so that whoever needs one model takes the same path to it as a run.
"""

from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from fineinstructions.backends.metered import AsksModel
from fineinstructions.embedded import names
from fineinstructions.endpoints import RUN_PHASES, asked_models, known_models, note_other_models
from fineinstructions.matches.popularity import (
    open_popularity,
)
from fineinstructions.matches.retrieve import Gate, RetrieveConfig, threshold
from fineinstructions.matches.sample import Sampler, uses_popularity
from fineinstructions.pairs.compatibility import CompatibilityJudge, PromptedCompatibilityJudge
from fineinstructions.pairs.instantiate import Instantiator, PromptedInstantiator
from fineinstructions.pairs.judge import Judge, PromptedJudge
from fineinstructions.runs import Unit
from fineinstructions.setup import Setup
from fineinstructions.templates.genericize import Genericizer, PromptedGenericizer
from fineinstructions.templates.index import TemplateIndex, open_index

if TYPE_CHECKING:
    from fineinstructions.backends.encoder import Encoder
    from fineinstructions.backends.llm import ChatClient

T = TypeVar("T")


class Models:
    """The models of one process, each built when it is first asked for."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._config = setup.config

    @cached_property
    def client(self) -> "ChatClient":
        """The language models that stages ask, with the run's response cache."""
        from fineinstructions.backends.cache import ResponseCache
        from fineinstructions.backends.llm import ChatClient

        return ChatClient(
            self._config.llm,
            ResponseCache(self._setup.cache_dir),
            known=known_models(self._setup),
            batches_dir=self._setup.batches_dir,
        )

    @cached_property
    def encoder(self) -> "Encoder":
        """Encoder of descriptions and documents; loads nothing large before it encodes."""
        from fineinstructions.backends.encoders import open_encoder

        return open_encoder(self._config.encoder, self._config.llm)

    @cached_property
    def retrieve(self) -> RetrieveConfig:
        """Settings of retrieval with the threshold that holds.

        The encoder is asked, not the run's index, so that an encoder can be calibrated without embedding a bank again.
        An index that was made before has its own, which may be calibrated too.

        Raises:
            ConfigError: If neither the recipe, nor the gate, nor the encoder or the ready index has a threshold.
        """
        config = self._config.retrieve
        if config.min_cosine is not None or self._has_gate:
            return config
        calibrated = self.index.min_cosine if self._config.templates.index else self.encoder.min_cosine
        return config.model_copy(update={"min_cosine": threshold(config, None, calibrated)})

    @cached_property
    def genericizer(self) -> Genericizer:
        """Model of the first stage."""
        if self._config.genericize.model == "openai":
            return PromptedGenericizer(self.client, self._config.genericize)
        from fineinstructions.embedded.genericizer import EmbeddedGenericizer

        return EmbeddedGenericizer()

    @cached_property
    def index(self) -> TemplateIndex:
        """The run's template index.

        What makes the index stale holds it to the encoder (`staleness`), so that whoever only looks templates up needs
        none.
        """
        return open_index(self._setup.index_dir, verify=False, config=self._config.index)

    @property
    def _has_gate(self) -> bool:
        return self._config.instantiate.model != "openai"

    @cached_property
    def sampler(self) -> Sampler:
        """Chooses the templates of documents."""
        config = self._config.sample
        popularity = open_popularity(self._setup.popularity_dir) if uses_popularity(config) else None
        return Sampler(self.index, config, self._config.seed, popularity)

    @cached_property
    def gate(self) -> Gate | None:
        """Compatibility test of the embedded tier, whatever the encoder; language models can refuse by themselves."""
        if not self._has_gate:
            return None
        from fineinstructions.embedded.relations import RelationGate

        return RelationGate(list(self.index.live_templates()), self._config.seed, self.index.live_rows)

    @cached_property
    def instantiator(self) -> Instantiator:
        """Model that fills templates."""
        if self._config.instantiate.model == "openai":
            return PromptedInstantiator(self.client, self._config.instantiate, self._config.excerpts)
        from fineinstructions.embedded.instantiator import EmbeddedInstantiator

        return EmbeddedInstantiator()

    @cached_property
    def compatibility(self) -> CompatibilityJudge:
        """Model that says whether documents can answer templates."""
        if self._config.compatibility.model == "openai":
            return PromptedCompatibilityJudge(self.client, self._config.compatibility)
        from fineinstructions.embedded.compatibility import EmbeddedCompatibilityJudge

        return EmbeddedCompatibilityJudge()

    @cached_property
    def judge(self) -> Judge:
        """Model that scores pairs."""
        if self._config.judge.model == "openai":
            return PromptedJudge(self.client, self._config.judge)
        from fineinstructions.embedded.judge import EmbeddedJudge

        return EmbeddedJudge()

    @cached_property
    def genericizer_name(self) -> str:
        """What the model of the first stage is called; asking loads none of the embedded tier, nor do the next two."""
        asks = self._config.genericize.model == "openai"
        return self.genericizer.model if asks else names.genericizer_name()

    @cached_property
    def instantiator_name(self) -> str:
        """What the model that fills templates is called."""
        asks = self._config.instantiate.model == "openai"
        return self.instantiator.model if asks else names.instantiator_name()

    @cached_property
    def judge_name(self) -> str:
        """What the model that scores pairs is called."""
        return self.judge.model if self._config.judge.model == "openai" else names.judge_name()

    def import_modules(self) -> None:
        """Import what the models of most processes need; building and asking them would import it as well."""
        from fineinstructions.backends.vector_index.exact import load_faiss

        load_faiss()
        if self._has_gate:
            from fineinstructions.embedded import genericizer, instantiator, judge, relations

            del genericizer, instantiator, judge, relations
        if any(llm.engine == "server" for llm in asked_models(self._config, *RUN_PHASES).values()):
            import aiohttp

            del aiohttp

    def look_again(self) -> None:
        """Find the replies of models that other processes have stored since."""
        if "client" in vars(self):
            self.client.look_again()

    def close(self) -> None:
        """Close the connections to model servers, if any were made."""
        if "client" in vars(self):
            self.client.close()
            note_other_models(self._setup, self.client.other_models)
        close = getattr(vars(self).get("encoder"), "close", None)
        if close is not None:
            close()

    def lineage(self) -> dict[str, str]:
        """Models behind every pair that neither its draft nor its verdict names."""
        made_here = {} if self._config.templates.is_ready_made else {"genericizer": self.genericizer_name}
        screened = {"compatibility": self.compatibility.model} if self._config.compatibility.screen else {}
        return made_here | {"encoder": self.index.encoder_id} | screened


def build_models(setup: Setup) -> Models:
    """The models of one worker process."""
    models = Models(setup)
    config = setup.config
    if asked_models(config, *RUN_PHASES):
        models.client  # noqa: B018 -- built before there are threads: two clients would be two request windows
    return models


def metered(model: T, unit: Unit, stage: str) -> T:
    """A stage's model, with what it asks of language models counted for a unit."""
    return model.metered(unit.meter(stage)) if isinstance(model, AsksModel) else model
