"""Passages to what a small student begins as: a vocabulary of its own, and weights that can copy and nothing else.

The vocabulary is made for copying: a word is the same tokens wherever it stands, at the beginning of a document, behind
a line break or behind a tag, because a space is put behind whatever the published formats write around texts, and taken
away again when a reply is read. Each piece of that markup is one token, so hardly anything of a row is not text.

    python benchmarks/small_base.py passages.parquet --config recipes/students/small/config.json --out FOLDER
"""

import argparse
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"
MARKUP = (
    '{"instruction_template": "',
    '", "document": "',
    '{"instruction": "',
    '", "answer": "',
    '{"template": "',
    '", "compatible_document_description": "',
    '"}',
    "<fi>",
    "</fi>",
    "<excerpt>",
    "</excerpt>",
    "<...>",
    r"\n",
)
"""What stands around texts in prompts and replies of students; the last is a line break in JSON."""
BATCH = 1000
NUM_TRIED = 100


def texts_of(passages: Path, number: int) -> Iterator[str]:
    """The lines of passages from all over a file, about `number` of them."""
    file = pq.ParquetFile(passages)
    every = max(1, file.metadata.num_rows // number)
    for batch in file.iter_batches(BATCH, columns=["text"]):
        for text in batch.column("text").to_pylist()[::every]:
            yield from text.split("\n")


def tokenizer_of(texts: Iterable[str], vocab_size: int) -> Any:
    """A tokenizer with `vocab_size` entries; what it takes apart it puts together again, but for a space in front."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Prepend(" ")
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    behind_markup = "|".join(re.escape(markup) for markup in MARKUP)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace(Regex(f"(?<={behind_markup}) "), "")])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    size = vocab_size - len(MARKUP) - 2
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.add_special_tokens([BOS, EOS])
    tokenizer.add_tokens([AddedToken(markup, normalized=False, special=False) for markup in MARKUP])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=EOS)


def share_copied(model: Any, tokenizer: Any, rows: Iterable[dict[str, Any]]) -> float:
    """Share of a quotation's tokens that are the likeliest ones, from the third on: the first two say where it stands.

    Args:
        model: A causal model.
        tokenizer: Its tokenizer, of `tokenizer_of`.
        rows: Rows to train an instantiator on, with one quotation each; one without is left out.
    """
    import torch

    begin, end = tokenizer.convert_tokens_to_ids(["<excerpt>", "</excerpt>"])
    right: list[bool] = []
    for row in rows:
        text = f"{tokenizer.bos_token}{row['prompt'][0]['content']}\n{row['completion'][0]['content']}"
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if begin in ids and end in ids:
            with torch.no_grad():
                likeliest = model(input_ids=torch.tensor([ids])).logits[0, :-1].argmax(dim=-1)
            is_right = (likeliest == torch.tensor(ids[1:])).tolist()
            right += is_right[ids.index(begin) + 2 : ids.index(end) - 1]
    return sum(right) / max(1, len(right))


def main() -> None:
    import torch
    from copying_weights import lay_out
    from transformers import AutoConfig, AutoModelForCausalLM

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("passages", type=Path, help="Parquet file of benchmarks/passages.py")
    parser.add_argument("--config", type=Path, required=True, help="shape of the model, as transformers writes it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--number", type=int, default=3_000, help="passages that the vocabulary is made of")
    parser.add_argument("--random", action="store_true", help="weights that cannot copy either, to compare with")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--try-on", type=Path, help="folder or file of rows for an instantiator: how well they are quoted"
    )
    args = parser.parse_args()
    shape = AutoConfig.from_pretrained(args.config)
    tokenizer = tokenizer_of(texts_of(args.passages, args.number), shape.vocab_size)
    if len(tokenizer) != shape.vocab_size:
        raise SystemExit(f"{args.passages}: only {len(tokenizer):,} tokens come of it; give more passages")
    shape.bos_token_id, shape.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    shape.pad_token_id = tokenizer.pad_token_id
    torch.manual_seed(args.seed)
    model = AutoModelForCausalLM.from_config(shape)
    if not args.random:
        lay_out(model, args.seed)
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    print(f"{args.out}: {model.num_parameters():,} parameters, {len(tokenizer):,} tokens")
    if args.try_on:
        share = share_copied(model.eval(), tokenizer, pq.read_table(args.try_on).slice(0, NUM_TRIED).to_pylist())
        print(f"{args.try_on}: {share:.3f} of the tokens of quotations, from the third on, are the likeliest ones")


if __name__ == "__main__":
    main()
