"""The loss on replies without logits anywhere else, for trainings on a processor.

In: trl's trainer. Out: one with the same loss. The decision to question: trl computes the loss in tiles that save a
GPU's memory; on a processor they take two thirds of a small model's training and save nothing.
"""

import inspect
from typing import Any

_IGNORED = -100
"""Label of a token that is not learned."""


def skips_logits(model: Any) -> bool:
    """Whether a model can leave out logits of tokens that nobody asks for."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters


def reply_trainer() -> Any:
    """The trainer of trl for conversations, but tokens outside of replies are never turned into logits."""
    from torch.nn.functional import cross_entropy
    from trl import SFTTrainer

    class ReplyTrainer(SFTTrainer):  # type: ignore[misc]
        def compute_loss(
            self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            labels_bt = inputs["labels"][:, 1:]
            kept = (labels_bt != _IGNORED).any(dim=0).nonzero()[:, 0]
            others = {name: value for name, value in inputs.items() if name != "labels"}
            outputs = model(**others, use_cache=False, logits_to_keep=kept)
            targets = labels_bt[:, kept].flatten()
            is_reply = targets != _IGNORED
            loss = cross_entropy(outputs.logits.flatten(0, 1)[is_reply].float(), targets[is_reply], reduction="sum")
            loss = loss / (is_reply.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch)
            if self.args.average_tokens_across_devices and num_items_in_batch is not None:
                loss = loss * self.accelerator.num_processes
            return (loss, outputs) if return_outputs else loss

    return ReplyTrainer
