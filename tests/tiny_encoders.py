"""Small real encoders with random weights, saved in the formats that users have; they need the extra [embed]."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WORDS = [f"word{i}" for i in range(200)]
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
WIDTH = 32
WINDOW = 64
FOREIGN_POOLING = "pooling_coverage.GaussianCoveragePooling"


def save_xlm_roberta(folder: Path, texts: Sequence[str] = (), contextual: bool = True) -> Path:
    """An XLM-RoBERTa: positions from behind the padding id, subwords with offsets, `<s>` and `</s>` around a text.

    `texts` give whole words to the vocabulary; `contextual=False` keeps words apart from their places and neighbours.
    """
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

    words = sorted({*WORDS, *(w for text in texts for w in re.findall(r"\w+", text))})
    letters = sorted({c for w in words for c in w} | set("abcdefghijklmnopqrstuvwxyz0123456789.,!?"))
    tokens = [*letters, "▁", *(f"▁{w}" for w in words)]
    vocabulary = [(s, 0.0) for s in SPECIAL] + [(t, -1.0 if t.startswith("▁") else -10.0) for t in tokens]
    inner = Tokenizer(models.Unigram(vocabulary, unk_id=3))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", cls_token="<s>", pad_token="<pad>", eos_token="</s>",
        sep_token="</s>", unk_token="<unk>", model_max_length=WINDOW,
    )  # fmt: skip
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=len(vocabulary), hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=WINDOW + 2, pad_token_id=1, initializer_range=0.3,
    )  # fmt: skip
    model = XLMRobertaModel(config)
    for name, weight in model.named_parameters():
        if not contextual and ("position" in name or "token_type" in name or (".layer." in name and weight.dim() == 2)):
            weight.data *= 0.02
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_bert(folder: Path) -> Path:
    """A BERT with word pieces, `[CLS]` and `[SEP]`."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, "the", "##s", "."]
    inner = Tokenizer(models.WordPiece({t: i for i, t in enumerate(tokens)}, unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names: dict[str, Any] = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokens), hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=WINDOW, initializer_range=0.3,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=inner, **names).save_pretrained(folder)
    return folder


def save_sentence_transformer(folder: Path, plain: Path, pooling: str = "mean", dense: int | None = None) -> Path:
    """The same model as a SentenceTransformer, with modules.json."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules as models

    transformer = models.Transformer(str(plain))
    modules = [transformer, models.Pooling(WIDTH, pooling_mode=pooling)]
    if dense is not None:
        modules.append(models.Dense(WIDTH, dense))
    SentenceTransformer(modules=[*modules, models.Normalize()], device="cpu").save(str(folder))
    return folder


def name_a_foreign_class(folder: Path, kind: str = FOREIGN_POOLING) -> Path:
    """The pooling module becomes a class of the model's own, as in the authors' release; its code would raise."""
    path = folder / "modules.json"
    modules = json.loads(path.read_text(encoding="utf-8"))
    modules[1]["type"] = kind
    path.write_text(json.dumps(modules), encoding="utf-8")
    code = "raise SystemExit('code of a model was run')\n"
    (folder / f"{kind.split('.')[0]}.py").write_text(code, encoding="utf-8")
    return folder
