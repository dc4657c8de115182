"""What ACMIL and AEM are compared with, from the repositories that the references name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from unittest import mock

import torch
import torch.nn.functional as F
from bag_cases import bag_of, head_of, label_of
from case import Case
from torch import Tensor

from regard.heads import dtfd
from regard.heads.contract import binary_cross_entropy


def clam(case: Case) -> dict[str, Tensor]:
    config, label, bag = case.config, label_of(case), bag_of(case)
    head = head_of(case, samples=config["k_sample"], subtyping=config["subtyping"])
    output, found = head(bag, labels=label), head.pool(bag, None)
    asked = []
    for index, classifier in enumerate(head.instance_classifiers):
        scores = found.scores[0, index if config["multi_branch"] else 0]
        sampled = head.sample(scores, index == label.item())
        if sampled is not None:
            hidden = head.attention_net[0](bag[0, sampled[0]]).relu()
            asked.append((classifier(hidden).argmax(dim=-1), sampled[1]))
    return {
        "logits": output.logits,
        "prob": output.logits.softmax(dim=-1),
        "attn": found.scores[0],
        "features": found.features[0],
        "inst_preds": torch.cat([predicted for predicted, _ in asked]),
        "inst_labels": torch.cat([wanted for _, wanted in asked]),
        "instance_loss": output.losses["instance"] / 0.3,
        "loss_total": output.loss(label),
    }


def dsmil(case: Case) -> dict[str, Tensor]:
    head, bag, label = head_of(case), bag_of(case), label_of(case)
    if case.config["num_classes"] == 1:
        label = 1 - label  # theirs is the index of the one: 0 means that the class is there
    output, streams = head(bag, labels=label, criterion=binary_cross_entropy), head.streams(bag, None)
    return {
        "bag_logits": output.logits,
        "instance_logits": streams.instance_logits[0],
        "attn": output.attention[0].t(),
        "bag_feat": output.features,
        "loss_total": output.loss(label, binary_cross_entropy),
    }


def distilled(case: Case) -> dict[str, Tensor]:
    config, label, bag = case.config, label_of(case), bag_of(case)
    head = head_of(case, groups=config["numGroup"], distillation=config["distill"], distilled=config["total_instance"])
    inside: dict[str, Tensor] = {}
    head.classifier.register_forward_hook(lambda _, __, out: inside.__setitem__("sub_logits", out))
    second = head.att_classifier["attention"]
    second.register_forward_hook(lambda _, given, __: inside.__setitem__("distilled", given[0]))
    groups = list(case.inputs["perm"].tensor_split(config["numGroup"]))
    with mock.patch.object(dtfd, "deal", return_value=groups):
        output = head(bag, labels=label)
    return {
        **inside,
        "slide_logits": output.logits,
        "loss_tier1": output.losses["tier1"],
        "loss_tier2": F.cross_entropy(output.logits, label),
    }


def deconfounded(case: Case) -> dict[str, Tensor]:
    head, bag = head_of(case, merge=case.config["confounder_merge"]), bag_of(case)
    output = head(bag)
    looked_up = head.look_up(head.pool(bag, None).features[:, 0])
    return {"logits": output.logits, "bag_feat": output.features, "deconf_attn": looked_up.t()}


def low_rank(case: Case) -> dict[str, Tensor]:
    head, logits = head_of(case, heads=case.config.get("num_heads", 8)), []
    head.classifier.register_forward_hook(lambda _, __, out: logits.append(out))
    output = head(bag_of(case))
    torch.testing.assert_close(output.logits[0], logits[0].mean(dim=0))
    return {"logits": logits[0][None].squeeze(1)}  # theirs leaves the logits of several latents side by side


def scored(case: Case, name: str | None = None) -> dict[str, Tensor]:
    logits = head_of(case, name or case.config["kind"])(bag_of(case)).logits
    return {"logits": logits, "prob": logits.softmax(dim=-1)}


CHECKS: dict[str, Callable[[Case], dict[str, Tensor]]] = {
    "models.model_clam.CLAM_SB": clam,
    "models.model_clam.CLAM_MB": clam,
    "dsmil.MILNet": dsmil,
    "Main_DTFD_MIL.py (modules) ; loop re-stated": distilled,
    "architecture.ibmil.IBMIL": deconfounded,
    "architecture.ilra.ILRA": low_rank,
    "models.TransMIL + nystrom-attention 0.0.14": partial(scored, name="transmil"),
    "modules.mean_max": scored,
}
