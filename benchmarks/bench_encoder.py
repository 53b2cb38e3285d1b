"""What coverage pooling costs beside the encoder, and how fast a GPU encodes.

    python benchmarks/bench_encoder.py --out benchmarks/results/NAME.md

(a) K + 1 vectors per document against one mean vector, on a small random transformer and real documents, on this CPU in
one thread: whole calls that take turns, and the pooling alone on the same shapes. (b) where there is a GPU: a random
model of BGE-M3's shape in bfloat16 against `SentenceTransformer.encode`, with model FLOPs utilisation. Weights are
random because only times are looked at; the tokenizer is learned from the documents.
"""

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import datetime
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling as StockPooling
from sentence_transformers.sentence_transformer.modules import Transformer as StockTransformer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

from fineinstructions.backends.encoder import EncoderConfig
from fineinstructions.backends.sentence_encoder import SentenceEncoder
from fineinstructions.backends.torch_pooling import placed_weights, weighted_means
from fineinstructions.pooling import Pooling

WINDOW = 8192
SMALL = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
BGE_M3 = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
PEAK_TFLOPS = {"H100": 989, "H200": 989, "A100": 312, "L40S": 362, "A10": 125, "L4": 121}
"""Dense bfloat16, from the makers' data sheets; the first name that the device's contains."""
POOLING = Pooling()


def save_model(folder: Path, shape: dict[str, int], texts: Sequence[str]) -> Path:
    """A random XLM-RoBERTa of a shape, with word pieces learned from the texts."""
    inner = Tokenizer(models.WordPiece(unk_token="<unk>"))
    inner.normalizer, inner.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    inner.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=20_000, special_tokens=special))
    inner.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    names = {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=WINDOW, **names).save_pretrained(folder)
    config = XLMRobertaConfig(
        vocab_size=inner.get_vocab_size(), max_position_embeddings=WINDOW + 2, pad_token_id=1, **shape
    )
    torch.manual_seed(0)
    XLMRobertaModel(config).save_pretrained(folder)
    return folder


def seconds_of(function: Callable[[], Any]) -> tuple[float, float]:
    """Wall and processor time of a call."""
    wall, processor = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - processor


def spread(values: Sequence[float], form: str) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:{form}} | {low:{form}} | {high:{form}}"


def pooling_alone(lengths: Sequence[int], batch_tokens: int, width: int, weights: Callable[[int], Any]) -> float:
    """Processor seconds of weights and sums, without any model, over batches as the encoder cuts them."""
    total = 0.0
    for batch in batches(lengths, batch_tokens):
        hidden = torch.randn(len(batch), max(batch), width)
        mask = np.arange(max(batch))[None, :] < np.array(batch)[:, None]
        total += seconds_of(
            lambda h=hidden, m=mask, b=batch: weighted_means(h, placed_weights([weights(n) for n in b], m))
        )[1]
    return total


def unseen(number: int) -> Pooling:
    """Coverage pooling whose weights were not made before: an encoder meets documents of ever new lengths."""
    return Pooling(sigma=0.05 * (1 + 1e-9 * (number + 1)))


def batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    batch: list[int] = []
    for length in sorted(lengths, reverse=True):
        if batch and (len(batch) + 1) * batch[0] > batch_tokens:
            yield batch
            batch = []
        batch.append(length)
    yield batch


def overhead(texts: Sequence[str], rounds: int, batch_tokens: int) -> Iterator[str]:
    """(a) What K + 1 vectors cost beside one."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model = save_model(Path(folder), SMALL, texts)
        encoder = SentenceEncoder(EncoderConfig(model=str(model), device="cpu", batch_tokens=batch_tokens))
        lengths = [len(d.token_starts) for d in encoder.encode_documents(texts, POOLING)]  # and everything is warm
        plain, pooled = [], []
        for number in range(rounds):
            calls = [
                (plain, lambda: encoder.encode_texts(texts)),
                (pooled, lambda n=number: encoder.encode_documents(texts, unseen(n))),
            ]
            for kept, call in calls if number % 2 == 0 else calls[::-1]:
                kept.append(seconds_of(call))
    width = SMALL["hidden_size"]
    alone = [
        [pooling_alone(lengths, batch_tokens, width, unseen(rounds + n).weights) for n in range(rounds)],
        [pooling_alone(lengths, batch_tokens, width, lambda n: np.full((1, n), 1.0 / n)) for _ in range(rounds)],
    ]
    extra = statistics.median(alone[0]) - statistics.median(alone[1])
    share = extra / statistics.median([processor for _, processor in plain])
    ratios = {
        kind: [100 * (b[i] / a[i] - 1) for a, b in zip(plain, pooled, strict=True)]
        for i, kind in enumerate(("wall time", "processor time"))
    }
    yield f"## (a) K + 1 = {POOLING.coverage_chunks + 1} vectors against one, CPU, one thread, float32"
    lengths_line = f"median {statistics.median(lengths):,.0f}, longest {max(lengths):,}"
    yield f"\n{len(texts)} documents, {sum(lengths):,} tokens ({lengths_line}); random transformer of"
    yield f"{SMALL}; batches of {batch_tokens:,} tokens; {rounds} rounds.\n"
    yield "| figure | median | least | most |\n| --- | --- | --- | --- |"
    yield f"| one mean vector, processor seconds a call | {spread([p for _, p in plain], '.2f')} |"
    yield f"| K + 1 vectors, processor seconds a call | {spread([p for _, p in pooled], '.2f')} |"
    for kind, values in ratios.items():
        yield f"| K + 1 over one, {kind}, paired calls, % more | {spread(values, '+.2f')} |"
    yield f"| weights and sums alone, K + 1, milliseconds | {spread([1e3 * v for v in alone[0]], '.1f')} |"
    yield f"| weights and sums alone, one, milliseconds | {spread([1e3 * v for v in alone[1]], '.1f')} |"
    yield f"\nExtra pooling alone as a share of the encode time: {100 * share:.2f} % (wanted: at most 2 %)."


def on_a_gpu(texts: Sequence[str], rounds: int) -> Iterator[str]:
    """(b) Documents per second of a model of BGE-M3's shape, ours and the library's."""
    yield "\n## (b) BGE-M3's shape on a GPU, bfloat16"
    if not torch.cuda.is_available():
        yield "\nSkipped: there is no GPU here. Nothing is claimed about one."
        return
    name = torch.cuda.get_device_name()
    peak = next((tflops for key, tflops in PEAK_TFLOPS.items() if key in name), None)
    with tempfile.TemporaryDirectory() as folder:
        model = save_model(Path(folder), BGE_M3, texts)
        encoder = SentenceEncoder(EncoderConfig(model=str(model)))
        transformer = StockTransformer(str(model), model_kwargs={"dtype": torch.bfloat16})
        stock = SentenceTransformer(modules=[transformer, StockPooling(BGE_M3["hidden_size"])], device="cuda")
        lengths = [len(d.token_starts) for d in encoder.encode_documents(texts, POOLING)]
        stock.encode(texts[:64], batch_size=32)
        ours, theirs = [], []
        calls = [
            (ours, lambda: encoder.encode_documents(texts, POOLING)),
            (theirs, lambda: stock.encode(texts, batch_size=32)),
        ]
        for number in range(rounds):
            for kept, call in calls if number % 2 == 0 else calls[::-1]:
                kept.append(seconds_of(call)[0])
    flops = sum(flops_of(length) for length in lengths)
    yield f"\n{name}; {len(texts)} documents, {sum(lengths):,} tokens; {rounds} rounds that take turns.\n"
    yield "| figure | median | least | most |\n| --- | --- | --- | --- |"
    for kind, taken in (("ours, K + 1 vectors", ours), ("SentenceTransformer.encode, one vector", theirs)):
        yield f"| {kind}, documents/s | {spread([len(texts) / s for s in taken], ',.0f')} |"
        if peak:
            yield f"| {kind}, share of {peak} TFLOP/s | {spread([flops / s / peak / 1e12 for s in taken], '.3f')} |"


def flops_of(length: int) -> float:
    """Floating point operations of one document: matrices of the layers, and attention."""
    width, layers = BGE_M3["hidden_size"], BGE_M3["num_hidden_layers"]
    matrices = 4 * width**2 + 2 * width * BGE_M3["intermediate_size"]
    return 2.0 * layers * length * matrices + 4.0 * layers * length**2 * width


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=Path, default=Path("examples/data/documents.parquet"))
    parser.add_argument("--number", type=int, default=40, help="documents for (a), spread evenly")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch-tokens", type=int, default=8192, help="of (a)")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    texts = pq.read_table(options.documents, columns=["text"]).column("text").to_pylist()
    some = texts[:: max(1, len(texts) // options.number)][: options.number]
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, Python {platform.python_version()}"
    lines = [f"# Encoder, {datetime.date.today()}\n", f"{platform.machine()}, {os.cpu_count()} processors; {versions};"]
    lines += [f"`bench_encoder.py --number {options.number} --rounds {options.rounds}`.\n"]
    for line in (*overhead(some, options.rounds, options.batch_tokens), *on_a_gpu(texts * 5, options.rounds)):
        print(line, flush=True)
        lines.append(line)
    if options.out:
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
