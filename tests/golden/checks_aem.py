"""AEM: dazhangyu123/AEM, main.py with its three architectures."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from bag_cases import bag_of, head_of, label_of
from case import Case
from torch import Tensor

from regard.heads import AEM


def pooled(case: Case, arch: str) -> dict[str, Tensor]:
    head, bag, label = head_of(case), bag_of(case), label_of(case)
    output = head(bag, labels=label)
    scores = head.scores(bag, None).transpose(0, 1) if arch == "mha" else head.pool(bag, None).scores
    return {"attn": scores, **regularised(case, output, output.logits, F.softmax(output.logits, dim=-1))}


def dual_stream(case: Case) -> dict[str, Tensor]:
    head, bag, label = head_of(case), bag_of(case), label_of(case)
    output, streams = head(bag, labels=label), head.streams(bag, None)
    probabilities = (F.softmax(streams.max_logits, dim=-1) + F.softmax(streams.bag_logits, dim=-1)) / 2
    return {
        "attn": streams.scores[0],
        "instance_logits": streams.instance_logits[0],
        "max_logits": streams.max_logits,
        **regularised(case, output, output.logits, probabilities),
    }


def regularised(case: Case, output, logits: Tensor, probabilities: Tensor) -> dict[str, Tensor]:
    loss = output.loss(label_of(case))
    return {
        "bag_logits": logits,
        "pred": probabilities,
        "loss_bag": loss,
        "neg_entropy": AEM(weight=1.0)(output),
        "loss_total": loss + AEM(weight=case.config["lamda"])(output),
    }


CHECKS: dict[str, Callable[[Case], dict[str, Tensor]]] = {
    "main.py arch=abmil": partial(pooled, arch="abmil"),
    "main.py arch=mha": partial(pooled, arch="mha"),
    "main.py arch=dsmil": dual_stream,
}
