"""The attention function of all interventions and all model families.

It runs transformers' own `sdpa` attention and recomputes only the rows that are edited: in the prefill the last row or
the rows after the image, later the single new row (for which `sdpa` is not run at all). Layers without edits are plain
`sdpa`.

It is registered with transformers under the name `regard`, together with `sdpa`'s masks: a function without a mask of
the same name would silently run without causality and padding.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from .layer_edits import LayerEdits

__all__ = ["EDITS", "IMPLEMENTATION", "edited_attention"]

#: Name of the function in transformers.
IMPLEMENTATION = "regard"

#: `id` of an attention module -> its edits; modules that are not in it run `sdpa`. A session removes its modules when
#: it ends, before they can be deleted.
EDITS: dict[int, LayerEdits] = {}


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
        module: the calling attention module; its edits are looked up in `EDITS`.
        query: after rotary embedding.
        key: after rotary embedding and cache; several query heads may share one key head.
        value: likewise.
        attention_mask: bool (batch, 1, rows, keys), True where a key is visible; or additive; or `None` for causal.
        dropout: as in `sdpa`; edited rows have none, since sessions are for inference.
        scaling: factor of the scores, `head_dim ** -0.5` by default.
        kwargs: other arguments of `sdpa`, and `softcap`, with which all rows are computed here.

    Returns:
        The heads' outputs, and `None` in place of the weights.
    """
    edits, softcap = EDITS.get(id(module)), kwargs.get("softcap")
    length = query.shape[2]
    rows = length if softcap is not None else 0 if edits is None else edits.rows(length)
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
        edited = _edited_rows(query[:, :, length - rows :], key, value, visible, scaling, softcap, edits)
        if output is None:
            output = edited
        else:
            output[:, length - rows :] = edited
    assert output is not None
    return (output if edits is None else edits.scale(output)), None


def _edited_rows(
    query: Float[Tensor, "batch heads rows head_dim"],
    key: Float[Tensor, "batch key_heads keys head_dim"],
    value: Float[Tensor, "batch key_heads keys value_dim"],
    visible: Bool[Tensor, "#batch 1 rows keys"] | None,
    scaling: float,
    softcap: float | None,
    edits: LayerEdits | None,
) -> Float[Tensor, "batch rows heads value_dim"]:
    """Attention written out, with the edits of scores and weights."""
    batch, heads, rows, width = query.shape
    keys, pairs = key.shape[2], batch * key.shape[1]  # of sample and key head; several query heads may share one
    shared = query.reshape(pairs, -1, width)  # pairs group*rows head_dim
    logits = torch.baddbmm(query.new_empty(()), shared, key.reshape(pairs, keys, width).mT, beta=0, alpha=scaling)
    logits = logits.view(batch, heads, rows, keys)
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    masked = None if visible is None else ~visible
    if masked is not None:
        logits = logits.masked_fill(masked, torch.finfo(logits.dtype).min)
    if edits is not None:
        logits = edits.edit_logits(logits, masked)
    weights = logits.softmax(dim=-1, dtype=torch.float32)
    if edits is not None:
        weights = edits.edit_weights(weights)
    shared = weights.to(value.dtype).view(pairs, -1, keys)
    pooled = torch.bmm(shared, value.reshape(pairs, keys, -1))
    return pooled.view(batch, heads, rows, -1).transpose(1, 2)


def _visible(
    mask: Tensor | None, causal: bool, length: int, rows: int, key: Float[Tensor, "batch key_heads keys head_dim"]
) -> Bool[Tensor, "#batch 1 rows keys"] | None:
    """Which keys the last rows see; `None` if they see all."""
    keys = key.shape[2]
    if mask is not None:
        mask = mask[:, :1, -rows:, :keys]
        return mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
    if length == 1 or not causal:
        return None
    # As in `sdpa`, aligned at the upper left: keys beyond the queries are empty slots of a static cache.
    position = torch.arange(length - rows, length, device=key.device)
    return (torch.arange(keys, device=key.device) <= position[:, None])[None, None]


AttentionInterface.register(IMPLEMENTATION, edited_attention)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
