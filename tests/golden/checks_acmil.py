"""ACMIL: dazhangyu123/ACMIL, architecture/transformer.py and the losses of its training loop."""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

import torch
import torch.nn.functional as F
from bag_cases import bag_of, head_of, label_of, without_dropout
from case import Case
from torch import Tensor

from regard.heads import stkim
from regard.heads.aem import negative_entropy


def network(case: Case) -> dict[str, Tensor]:
    config, label, bag = case.config, label_of(case), bag_of(case)
    head = head_of(case, top=config["n_masked_patch"], hide_rate=float(config["mask_drop"]))
    if config.get("train"):
        without_dropout(head).train()
    drawn = case.inputs.get("rand")
    branches: list[Tensor] = []
    for layer in head.classifier:
        layer.register_forward_hook(lambda _, __, out: branches.append(out))
    with mock.patch.object(stkim, "draw", lambda shape, _: drawn.reshape(shape)):
        output = head(bag, labels=label)
        scores = head.pool(bag, None)[-1]
    heads = 1 if config["arch"] == "ga" else 8
    shape = (config["n_token"], heads, -1)
    attention = output.attention.reshape(shape).transpose(0, 1)  # heads branches instances
    slide, zero = F.cross_entropy(output.logits, label), torch.zeros(())
    return {
        "slide_logits": output.logits,
        "sub_logits": torch.cat(branches[: config["n_token"]]),
        "bag_feat": output.features,
        "attn": scores.reshape(shape).transpose(0, 1),
        "attn_prob": attention,
        "masked": (scores.reshape(shape).transpose(0, 1) <= torch.finfo(torch.float32).min).to(torch.uint8),
        "loss_sub": output.losses.get("branches", zero),
        "loss_diff": output.losses.get("diversity", zero),
        "loss_slide": slide,
        "loss_total": output.loss(label),
        "eval_neg_entropy": negative_entropy(output.attention).sum() / config["n_token"],  # not divided by the heads
    }


CHECKS: dict[str, Callable[[Case], dict[str, Tensor]]] = {
    f"{prefix}{name}": network for prefix in ("architecture.transformer.", "") for name in ("ACMIL_GA", "ACMIL_MHA")
}
