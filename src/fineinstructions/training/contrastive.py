"""Training of an embedder: documents and descriptions to an encoder that places them by whether they belong together.

In: labelled pairs and an encoder. Out: a SentenceTransformer folder of stock modules, whose vector is the mean over
tokens. Round 1 is about whole documents; round 2 takes the loss on the coverage chunk that a pair is about, through
`torch_pooling`, the pooling that matching uses.

The decision a reader would question: the folder names no pooling of ours. Stock users get the global vector without
running our code, and the local vectors are pooled wherever the package loads the same folder; they have no weights.

Shapes: B pairs, T tokens, K coverage chunks, D width.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from fineinstructions.backends.model_folder import ModelFolder
from fineinstructions.backends.torch_pooling import pool_padded
from fineinstructions.backends.transformer import load_transformer
from fineinstructions.errors import ConfigError
from fineinstructions.pooling import Pooling
from fineinstructions.progress import Progress
from fineinstructions.records import Rejection, rejection
from fineinstructions.runs.durable import beside, write_text
from fineinstructions.training.student import (
    FIGURES,
    MODEL,
    Batch,
    RoundFigures,
    StudentConfig,
    is_main,
    precision,
    run_trainer,
    teller,
    trainer_arguments,
    wait_for_all,
    world_size,
)

STAGE = "contrastive"
Round = Literal["document", "chunk"]


class TrainEmbedderConfig(StudentConfig):
    """An embedder: documents and compatible document descriptions in one space."""

    model: str = "BAAI/bge-m3"
    """Folder of a SentenceTransformer or Hugging Face encoder, or its name on the hub. Default: paper, section 3.2."""
    epochs: float = Field(default=2.0, gt=0)
    """How often the rows are read, in each round. Ours."""
    rounds: list[Round] = Field(default=["document", "chunk"], min_length=1)
    """What the loss is taken on, round after round: the vector of the whole document, or that of the coverage chunk
    that a pair is about. Default: paper, section 3.2."""
    loss: Literal["cosine", "ranking"] = "cosine"
    """Loss of the round ``document``. ``cosine``: the cosine shall be the label, so that one threshold holds for all
    documents (method of the authors' library). ``ranking``: the compatible description shall be nearer than a hard
    negative and those of all other documents of a step; cosines then mean less. Ours."""
    window_tokens: int | None = Field(default=None, ge=8)
    """Longest document in training, special tokens included; longer ones are set aside. ``null``: the model's own limit
    (BGE-M3: 8192)."""
    pairs_per_step: int = Field(default=32, ge=1)
    """Pairs of an optimiser step, over all devices. Ours."""
    micro_batch: int = Field(default=4, ge=1)
    """Pairs that a device takes at once; with ``cosine`` it decides rounding at most. Ours."""
    coverage_chunks: int = Field(default=5, ge=1)
    """Number of coverage chunks (K); as `chunk` in the recipe that the data come from. Paper, section 3.2; so are the
    next two."""
    sigma: float = Field(default=0.05, gt=0)
    """Width of a chunk's Gaussian, as a fraction of the document's length."""
    alpha: float = Field(default=1.0, ge=0, le=1)
    """Share of the Gaussian mean in a chunk's vector."""
    centres: Literal["midpoint", "linspace"] = "midpoint"
    """Where the Gaussians stand. Ours."""
    min_precision: float | None = Field(default=None, gt=0, le=1)
    """Precision that the calibrated threshold shall have on held-out pairs; ``null``: that with the best F1."""

    @property
    def pooling(self) -> Pooling:
        """How documents are pooled."""
        return Pooling(self.coverage_chunks, self.sigma, self.alpha, self.centres)


@dataclass(frozen=True, slots=True)
class TrainingPair:
    """A document, a description, and whether they belong together."""

    row_id: str
    document: str
    description: str
    label: float
    chunk: int
    """Coverage chunk that the pair is about; -1 for the whole."""


def load_embedder(folder: ModelFolder, window_tokens: int | None) -> Any:
    """Load an encoder as a SentenceTransformer whose vector is the mean over tokens.

    Raises:
        ConfigError: If it cannot be used, or has layers behind its pooling.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules

    layout = folder.layout
    if layout.after_pooling:
        kinds = ", ".join(kind for kind, _ in layout.after_pooling)
        raise ConfigError(f"{folder.section}.model: {folder.name} has {kinds} behind its pooling; give one without")
    checked = load_transformer(folder, "cpu", "float32", window_tokens)
    transformer = modules.Transformer.load(
        folder.name,
        subfolder=layout.transformer,
        trust_remote_code=False,
        model_kwargs={"use_safetensors": True, "dtype": "float32"},
        **folder.source,
    )
    transformer.max_seq_length = checked.window_tokens
    pooling = modules.Pooling(checked.hidden_width, pooling_mode="mean")
    model = SentenceTransformer(modules=[transformer, pooling, modules.Normalize()], device="cpu")
    model.model_card_data.widget = [{"text": ""}]  # the card is ours; none has to be made of the rows
    return model


def fitting(model: Any, pairs: Sequence[TrainingPair], pooling: Pooling) -> Iterator[TrainingPair | Rejection]:
    """Pairs whose texts the model reads whole.

    Yields:
        One item per pair, in order. Reasons: ``too_long`` (value: tokens of the longer text), ``no_such_chunk`` (value:
        the chunk).
    """
    lengths: dict[str, int] = {}
    for pair in pairs:
        for text in (pair.document, pair.description):
            if text not in lengths:
                lengths[text] = len(model.tokenizer(text, verbose=False)["input_ids"])
        longest = max(lengths[pair.document], lengths[pair.description])
        if longest > model.max_seq_length:
            yield rejection(STAGE, "too_long", pair.row_id, {"row_id": pair.row_id}, float(longest))
        elif pair.chunk >= pooling.coverage_chunks:
            yield rejection(STAGE, "no_such_chunk", pair.row_id, {"row_id": pair.row_id}, float(pair.chunk))
        else:
            yield pair


def triplets(pairs: Sequence[TrainingPair]) -> tuple[list[tuple[str, str, str]], list[str]]:
    """Documents with a compatible description and a hard negative, for a loss on ranks.

    Every compatible description of a document meets its negatives in turn.

    Returns:
        The triplets, and the ids of pairs that are in none: their document has pairs of one kind only.
    """
    by_document: dict[str, tuple[list[TrainingPair], list[TrainingPair]]] = {}
    for pair in pairs:
        by_document.setdefault(pair.document, ([], []))[pair.label < 0.5].append(pair)
    found, unused = list[tuple[str, str, str]](), list[str]()
    for document, (good, bad) in by_document.items():
        if not good or not bad:
            unused += [pair.row_id for pair in (*good, *bad)]
            continue
        for n in range(max(len(good), len(bad))):
            found.append((document, good[n % len(good)].description, bad[n % len(bad)].description))
    return found, unused


def train_embedder_round(
    kind: Round,
    pairs: Sequence[TrainingPair],
    held_out: Sequence[TrainingPair],
    model: Any,
    config: TrainEmbedderConfig,
    work: Path,
    progress: Progress,
) -> RoundFigures:
    """One round of training; leaves the model in ``work/model``.

    Args:
        kind: What the loss is taken on.
        pairs: What to learn.
        held_out: What only the loss is measured on.
        model: The SentenceTransformer, trained in place.
        config: Settings.
        work: Folder of the round.
        progress: Told how far it is.

    Raises:
        ConfigError: If the pairs do not do for the loss.
    """
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from transformers import set_seed

    set_seed(config.seed)
    ranking = kind == "document" and config.loss == "ranking"
    rows, held_rows = (_data_set(found, kind, ranking) for found in (pairs, held_out))
    if rows is None:
        raise ConfigError("data: no document has both a compatible description and a negative one; set loss: cosine")
    micro = max(1, config.pairs_per_step // world_size()) if ranking else config.micro_batch
    arguments = SentenceTransformerTrainingArguments(
        **trainer_arguments(config, work, Batch(config.pairs_per_step, micro), len(rows)),
        batch_sampler="no_duplicates" if ranking else "batch_sampler",
    )
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        eval_dataset=held_rows,
        loss=_loss(model, kind, ranking, config),
        callbacks=[teller(kind, progress)],
    )
    figures = run_trainer(trainer, kind, work, held_rows is not None)
    if is_main():
        _save(trainer.accelerator.unwrap_model(trainer.model), config, work / MODEL)
        plain = {slot: getattr(figures, slot) for slot in RoundFigures.__slots__}
        write_text(work / FIGURES, json.dumps(plain) + "\n")
    wait_for_all()
    return figures


def _data_set(pairs: Sequence[TrainingPair], kind: Round, ranking: bool) -> Any:
    """Pairs as a data set for the loss; None where there is no row."""
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    if ranking:
        found, _ = triplets(pairs)
        columns: dict[str, list[Any]] = {
            name: [triplet[place] for triplet in found] for place, name in enumerate(("document", "good", "bad"))
        }
    else:
        columns = {
            "document": [pair.document for pair in pairs],
            "description": [pair.description for pair in pairs],
            "label": [pair.label if kind == "document" else [pair.label, float(pair.chunk)] for pair in pairs],
        }
    return Dataset.from_dict(columns) if columns["document"] else None


def _loss(model: Any, kind: Round, ranking: bool, config: TrainEmbedderConfig) -> Any:
    from sentence_transformers.sentence_transformer import losses

    if ranking:
        return losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=config.micro_batch)
    return losses.CosineSimilarityLoss(model) if kind == "document" else chunk_loss(model, config.pooling)


def chunk_loss(model: Any, pooling: Pooling) -> Any:
    """Loss on the vector of the coverage chunk that a pair is about: its cosine shall be the label.

    Args:
        model: The SentenceTransformer.
        pooling: How documents are pooled.

    Returns:
        A module that takes the features of documents and descriptions, and labels of shape (B, 2): label and chunk.

    Source:
        arXiv:2601.22146, section 3.2; that descriptions keep their plain mean is ours.
    """
    import torch

    class ChunkLoss(torch.nn.Module):  # type: ignore[misc]
        """Mean squared distance between cosines and labels."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, features: Sequence[dict[str, Any]], labels_b2: Any) -> Any:
            """The loss of one batch."""
            document, description = list(features)
            read = self.model(document)
            vectors_brd = pool_padded(read["token_embeddings"], read["attention_mask"], pooling)
            chunks_b = labels_b2[:, 1].long()
            chosen_bd = vectors_brd[torch.arange(len(vectors_brd), device=vectors_brd.device), chunks_b]
            other_bd = self.model(description)["sentence_embedding"].float()
            cosines_b = torch.nn.functional.cosine_similarity(chosen_bd, other_bd)
            return torch.nn.functional.mse_loss(cosines_b, labels_b2[:, 0].float())

    return ChunkLoss()


def _save(model: Any, config: TrainEmbedderConfig, place: Path) -> None:
    """Write the model so that it is there whole or not at all."""
    import torch

    temporary = beside(place)
    model.to(getattr(torch, precision(config))).save(str(temporary), create_model_card=False)
    shutil.rmtree(place, ignore_errors=True)
    temporary.rename(place)
