"""Verbs of tokenizers: tokenizer train."""

import json
from pathlib import Path
from typing import Annotated

import typer

from fineinstructions.cli.runs import Json
from fineinstructions.errors import printable

app = typer.Typer(help="Make a tokenizer for small models.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Make a tokenizer for small models, for `export --tokenizer` and `pretrain`."""


@app.command("train")
def train(
    documents: Annotated[list[str], typer.Argument(help="Files, globs or folders with texts.", metavar="TEXTS...")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the tokenizer.", metavar="DIR")],
    vocab_size: Annotated[int, typer.Option(help="Number of tokens.", metavar="N")] = 4096,
    share: Annotated[float, typer.Option(help="Share of the texts that are read, chosen by their ids.")] = 1.0,
    text_column: Annotated[str, typer.Option(help="Column with the text.", metavar="NAME")] = "text",
    seed: Annotated[int, typer.Option(help="Decides which texts are read.", metavar="N")] = 0,
    as_json: Json = False,
) -> None:
    """Learn a byte-level BPE tokenizer from texts, as an ordinary Hugging Face folder; the same texts give the same.

    An arm of exported corpora does as well as documents: `tokenizer train corpora/demo/standard --out tokenizer`.
    """
    from fineinstructions.cli.reporters import waiting
    from fineinstructions.readers import DocumentsConfig
    from fineinstructions.tokenizer_training import train_tokenizer

    with waiting("learning a tokenizer"):
        source = DocumentsConfig(path=documents, text_column=text_column)
        done = train_tokenizer(source, out, vocab_size=vocab_size, share=share, seed=seed)
    facts = {"out": str(done.path), "texts": done.num_texts, "chars": done.num_chars, "vocab_size": done.vocab_size}
    if as_json:
        print(json.dumps(facts, indent=1))
        return
    print(f"{done.vocab_size:,} tokens from {done.num_texts:,} texts with {done.num_chars:,} characters")
    print(printable(str(done.path)))
