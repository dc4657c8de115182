"""The one attention function that every method and every model family share.

It runs transformers' own `sdpa` attention and recomputes, with the edits, only the rows that a method edits: at the
prefill the last row or those after the image, afterwards the single new row (for which `sdpa` is not run at all).
Layers that no method edits are `sdpa` and nothing else.

It stands in transformers' registry of attention functions under the name `regard`, with `sdpa`'s masks: a function
registered without a mask of its name is silently run without causality and padding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

if TYPE_CHECKING:
    from .call import LayerWork

__all__ = ["IMPLEMENTATION", "WORK", "edited_attention"]

#: The name under which transformers knows the function.
IMPLEMENTATION = "regard"

#: Identity of an attention module -> what is to be done in it now; modules that are not here are left to `sdpa`. A
#: session takes its modules out when it ends, before they can go.
WORK: dict[int, LayerWork] = {}


def edited_attention(
    module: nn.Module,
    query: Float[Tensor, "batch heads rows head_dim"],
    key: Float[Tensor, "batch key_heads keys head_dim"],
    value: Float[Tensor, "batch key_heads keys value_dim"],
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Float[Tensor, "batch rows heads value_dim"], None]:
    """Attention with the edits of the running session; the signature is transformers' own.

    Args:
        module: the attention module that asks; its work is looked up in `WORK`.
        query: after rotary embedding.
        key: after rotary embedding and cache; one head of it may serve several query heads.
        value: as `key`.
        attention_mask: bool (batch, 1, rows, keys), True where a key is visible; or to be added; or `None` for causal.
        dropout: as in `sdpa`; edited rows have none, since sessions are for inference.
        scaling: of the scores, `head_dim ** -0.5` by default.
        kwargs: the rest of what `sdpa` takes, and `softcap`, for which all rows are computed here.

    Returns:
        The heads' outputs, and `None` where transformers looks for weights.
    """
    work, softcap = WORK.get(id(module)), kwargs.get("softcap")
    length = query.shape[2]
    rows = length if softcap is not None else 0 if work is None else work.rows(length)
    output = None
    if rows < length:
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if rows:
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        causal = kwargs.get("is_causal")
        causal = getattr(module, "is_causal", True) if causal is None else causal
        visible = _visible(attention_mask, causal, length, rows, key)
        edited = _edited_rows(query[:, :, length - rows :], key, value, visible, scaling, softcap, work)
        if output is None:
            output = edited
        else:
            output[:, length - rows :] = edited
    assert output is not None
    return (output if work is None else work.scale(output)), None


def _edited_rows(
    query: Float[Tensor, "batch heads rows head_dim"],
    key: Float[Tensor, "batch key_heads keys head_dim"],
    value: Float[Tensor, "batch key_heads keys value_dim"],
    visible: Bool[Tensor, "#batch 1 rows keys"] | None,
    scaling: float,
    softcap: float | None,
    work: LayerWork | None,
) -> Float[Tensor, "batch rows heads value_dim"]:
    """Attention written out, with the edits of the logits and of the weights."""
    batch, heads, rows, width = query.shape
    keys, pairs = key.shape[2], batch * key.shape[1]  # of sample and key head; several query heads may share one
    shared = query.reshape(pairs, -1, width)  # pairs group*rows head_dim
    logits = torch.baddbmm(query.new_empty(()), shared, key.reshape(pairs, keys, width).mT, beta=0, alpha=scaling)
    logits = logits.view(batch, heads, rows, keys)
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    hidden = None if visible is None else ~visible
    if hidden is not None:
        logits = logits.masked_fill(hidden, torch.finfo(logits.dtype).min)
    if work is not None:
        logits = work.edit_logits(logits, hidden)
    weights = logits.softmax(dim=-1, dtype=torch.float32)
    if work is not None:
        weights = work.edit_weights(weights)
    shared = weights.to(value.dtype).view(pairs, -1, keys)
    pooled = torch.bmm(shared, value.reshape(pairs, keys, -1))
    return pooled.view(batch, heads, rows, -1).transpose(1, 2)


def _visible(
    mask: Tensor | None, causal: bool, length: int, rows: int, key: Float[Tensor, "batch key_heads keys head_dim"]
) -> Bool[Tensor, "#batch 1 rows keys"] | None:
    """Which keys the last rows see; `None` when they see all."""
    keys = key.shape[2]
    if mask is not None:
        mask = mask[:, :1, -rows:, :keys]
        return mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
    if length == 1 or not causal:
        return None
    # As in `sdpa`, counted from the upper left: keys beyond the queries are the room of an empty static cache.
    place = torch.arange(length - rows, length, device=key.device)
    return (torch.arange(keys, device=key.device) <= place[:, None])[None, None]


AttentionInterface.register(IMPLEMENTATION, edited_attention)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
