"""How probable a causal language model finds given continuations of a prompt; needs the extra ``[hf]``.

In: token ids of a prompt and of each continuation. Out: the sum of the log-probabilities of each continuation's tokens.
Only the logits of the continuations are computed, so a long prompt with a large vocabulary fits into memory.

Shapes: B continuations, T tokens, V vocabulary.
"""

from collections.abc import Sequence

from fineinstructions.backends.causal_model import CausalModel


def continuation_logprobs(
    model: CausalModel, prompt: Sequence[int], continuations: Sequence[Sequence[int]]
) -> list[float]:
    """Natural logarithm of the probability of each continuation.

    Args:
        model: The model.
        prompt: Token ids, at least one.
        continuations: Token ids of each, at least one; together with the prompt they must fit into the context.

    Raises:
        ValueError: If the prompt or a continuation is empty.
    """
    if not prompt or not all(continuations):
        raise ValueError("a prompt and its continuations have at least one token each")
    longest = max(map(len, continuations))
    lengths = [len(prompt) + len(continuation) for continuation in continuations]
    if not model.may_share(lengths, 0):
        return [continuation_logprobs(model, prompt, [continuation])[0] for continuation in continuations]
    return _together(model, prompt, continuations, longest, max(lengths))


def _together(
    model: CausalModel, prompt: Sequence[int], continuations: Sequence[Sequence[int]], longest: int, width: int
) -> list[float]:
    """All continuations in one batch, padded on the left."""
    import torch

    ids_bt = torch.full((len(continuations), width), model.padding, dtype=torch.long)
    mask_bt = torch.zeros_like(ids_bt)
    for row, continuation in enumerate(continuations):
        whole = [*prompt, *continuation]
        ids_bt[row, width - len(whole) :] = torch.tensor(whole, dtype=torch.long)
        mask_bt[row, width - len(whole) :] = 1
    places_bt = (mask_bt.cumsum(dim=-1) - 1).clamp(min=0)
    device = model.model.device
    with torch.inference_mode():
        logits_btv = model.model(
            input_ids=ids_bt.to(device),
            attention_mask=mask_bt.to(device),
            position_ids=places_bt.to(device),
            logits_to_keep=longest + 1,
        ).logits
        values_btv = torch.log_softmax(logits_btv.float(), dim=-1)[:, :-1]
    wanted_bt = ids_bt[:, width - longest :].to(device)
    found_bt = values_btv.gather(2, wanted_bt[:, :, None])[:, :, 0].cpu()
    return [float(found_bt[row, longest - len(part) :].sum()) for row, part in enumerate(continuations)]
