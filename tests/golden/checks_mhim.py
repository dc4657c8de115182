"""MHIM: DearCaat/MHIM-MIL, version 1 (branch v1) and version 2."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from unittest import mock

import torch
import torch.nn.functional as F
from bag_cases import bag_of, head_of, label_of, number_of, without_dropout
from case import Case
from torch import Tensor

from regard.heads import mhim_masking, mhim_merge


def network(case: Case) -> dict[str, Tensor]:
    config, bag = case.config, bag_of(case)
    first = "attn2score" not in config
    head = head_of(
        case,
        activation=config["act"],
        attention_activation=config["da_act"],
        mask_random=config.get("mask_ratio", 0.0),
        mask_low=config.get("mask_ratio_l", 0.0),
        mask_high=config["mask_ratio_h"],
        mask_high_share=config["mask_ratio_hr"],
        temperature=config["temp_t"],
        consistency=number_of(case, "cl_alpha" if first else "aux_alpha"),
        **({} if first else {"merge_keep": config["merge_ratio"], "merge_momentum": config["merge_mm"]}),
        **({} if first else {"merge_test": config["merge_test"], "by_class": config["attn2score"]}),
    )
    outputs = streams_of(head, bag, "test")
    if config.get("merge_test"):
        return outputs
    label = label_of(case)
    without_dropout(head).train()
    target, scores = head.teach(bag[0])
    before = None if first else head.student.merge.global_q.clone()
    orders = drawn(case)
    kept = []
    hook = head.student.online_encoder.register_forward_hook(lambda _, given, __: kept.append(len(given[0])))
    with (
        mock.patch.object(mhim_masking, "permutation", side_effect=lambda *_: next(orders)),
        mock.patch.object(mhim_merge, "noise", return_value=case.inputs.get("noise")),
    ):
        outputs |= streams_of(head, bag, "student")
        orders = drawn(case)
        output = head(bag, labels=label)
    hook.remove()
    outputs |= {
        "teacher_feat": target.features[None],
        "teacher_attn": scores,
        "teacher_score": scores,
        "keep_num": torch.tensor(kept[0]),
        "loss_cls": F.cross_entropy(output.logits, label),
        "loss_consistency": output.losses["consistency"] / head.consistency,
        "loss_total": output.loss(label),
    }
    if before is not None:
        head.after_step()
        outputs["global_q_delta_x1e4"] = (head.student.merge.global_q - before) * 1e4
    return outputs


def drawn(case: Case) -> Iterator[Tensor]:
    names = sorted(name for name in case.inputs if name.startswith("perm"))
    return iter([case.inputs[name] for name in names])


def streams_of(head, bag: Tensor, who: str) -> dict[str, Tensor]:
    """Logits, and those of both streams where there are two."""
    found = {}
    encoder = head.student.online_encoder
    if hasattr(encoder, "b_classifier"):
        hook = encoder.b_classifier.register_forward_hook(lambda _, __, out: found.__setitem__("streams", out))
        head(bag)
        hook.remove()
        streams = found["streams"]
        return {f"{who}_bag_logits": streams.bag_logits, f"{who}_max_logits": streams.max_logits}
    return {f"{who}_logits": head(bag).logits}


CHECKS: dict[str, Callable[[Case], dict[str, Tensor]]] = {"modules.mhim.MHIM": network}
