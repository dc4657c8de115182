"""Sparsifiner: lim142857/Sparsifiner, its attention with and without dropped tokens, on DeiT and on LV-ViT."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from case import Case
from torch import Tensor, nn

from regard.vision.attention.mask_predictor import Connections
from regard.vision.backbones.lvvit import ConvPatchEmbed
from regard.vision.backbones.sparsifiner import Sparsifiner, checkpoint_filter_fn
from regard.vision.backbones.sparsifiner_tokens import Left, SparsifinerTokens


def predictor_of(config: dict[str, Any]) -> dict[str, Any]:
    rate = config.get("attn_keep_rate", 0.25) if config.get("score_use_topk", True) else None
    return {
        "keep_rate": rate,
        "score_threshold": config.get("score_threshold", 1e-4),
        "reduce_n": config.get("reduce_n_factor", 6),
        "reduce_c": config.get("reduce_c_factor", 2),
        "tied": config.get("share_inout_proj", False),
        "basis_threshold": config.get("basis_threshold", 0.02),
        "coefficients": config.get("coef_topk", 8) if config.get("coef_use_topk", True) else None,
        "coefficient_threshold": config.get("coef_threshold", 0.05),
        "empty_dropped": config.get("prune_attn_matrix_row", False),
        "reconstruction": 0,
    }


def whole_mask(found: Connections, prefix: int) -> Tensor:
    """The map with the full rows of the prefix tokens."""
    first = torch.ones_like(found.mask[:, :, :1]).expand(-1, -1, prefix, -1)
    return torch.cat([first, found.mask], dim=2)


def tokens_of(case: Case) -> SparsifinerTokens:
    config = case.config
    module = SparsifinerTokens(
        config["dim"],
        num_heads=config.get("num_heads", 8),
        tokens=config.get("num_tokens", 197),
        qkv_bias=config.get("qkv_bias", False),
        predictor=predictor_of(config),
    )
    module.load_state_dict(case.state)
    return module.eval()


def attention(case: Case) -> dict[str, Tensor]:
    module, x = tokens_of(case), case.inputs["x"]
    left = None
    if "token_mask" in case.inputs:
        kept = case.inputs["token_mask"].flatten(1).bool()
        valid = torch.cat([torch.ones_like(kept[:, :1]), kept], dim=1)
        left = Left(int(kept.sum(dim=1).max()), valid=valid)
    out, found = module(x, left), module.connections(x, left)
    return {
        "x": out,
        "approx_attn": found.scores,
        "basis_coef": found.coefficients,
        "attn_mask": whole_mask(found, 1).to(torch.uint8),
    }


def reconstruction(case: Case) -> dict[str, Tensor]:
    module = tokens_of(case).train()
    predictor = module.mask_predictor
    predictor.mode, predictor.losses = "reconstruct", []
    with torch.enable_grad():
        out = module(case.inputs["x"])
        (loss,) = predictor.losses
        loss.backward()
    found = module.connections(case.inputs["x"])
    gradients = {
        f"grad_{name.replace('.', '_')}": parameter.grad
        for name, parameter in predictor.named_parameters()
        if parameter.grad is not None
    }
    return {"x": out, "approx_attn": found.scores, "recon_loss": loss.reshape(1), **gradients}


def attention_or_reconstruction(case: Case) -> dict[str, Tensor]:
    return (reconstruction if "RECON" in case.config.get("mode", "") else attention)(case)


def network(case: Case) -> dict[str, Tensor]:
    config = case.config
    depth, lvvit = config.get("depth", 12), "p_emb" in config
    keep_rates, dropping = config.get("attn_keep_rate_list", [0.25] * depth), None
    drops = config.get("token_pruning_loc_indicator", [False] * depth)
    if any(drops):
        dropping, rate = [], 1.0
        for here, wanted in zip(drops, config["token_keep_rate_list"], strict=True):
            rate = wanted if here else rate
            dropping.append(rate)
    settings = {
        "img_size": config.get("img_size", 224),
        "patch_size": config.get("patch_size", 16),
        "num_classes": config.get("num_classes", 1000),
        "embed_dim": config.get("embed_dim", 768),
        "depth": depth,
        "num_heads": config.get("num_heads", 12),
        "mlp_ratio": config.get("mlp_ratio", 4),
        "qkv_bias": config.get("qkv_bias", False),
        "predictor": predictor_of(config),
        "keep_rates": keep_rates if config.get("score_use_topk", True) else None,
        "token_keep_rates": dropping,
    }
    if lvvit:
        settings |= {
            "norm_layer": partial(nn.LayerNorm, eps=1e-5),
            "embed_layer": ConvPatchEmbed,
            "skip_lam": config.get("skip_lam", 1.0),
            "aux_head": config.get("return_dense", True),
        }
    outputs = {}
    for mode in ("reference", "removed") if dropping else ("reference",):
        model = Sparsifiner(**settings, token_mode=mode).eval()
        model.load_state_dict(checkpoint_filter_fn(case.state, model))
        outputs[mode] = run(model, case.inputs["x"])
    if dropping:  # the same numbers without the tokens
        for name in ("x", "features", "token_mask_last"):
            torch.testing.assert_close(outputs["removed"][name], outputs["reference"][name], rtol=1e-4, atol=1e-4)
    return outputs["reference"]


def run(model: Sparsifiner, x: Tensor) -> dict[str, Tensor]:
    counts: list[Tensor] = []

    def count(module: SparsifinerTokens, _: Any, left: Left | None, x: Tensor) -> None:
        counts.append(whole_mask(module.connections(x, left), model.num_prefix_tokens).flatten(1).sum(dim=1).float())

    for block in model.blocks:
        attend = block.attn.attend

        def counting(x: Tensor, left: Left | None, attend: Any = attend, module: Any = block.attn) -> Any:
            count(module, None, left, x)
            return attend(x, left)

        block.attn.attend = counting
    tokens, valid = model.run_blocks(x)
    features = model.norm(tokens[-1])
    patches = features[:, model.num_prefix_tokens :]
    outputs = {
        "x": model.forward_head(features),
        "features": patches if model.aux_head is None else model.aux_head(patches),
        "attn_mask_counts": torch.stack(counts),
    }
    if valid is not None:
        outputs["token_mask_last"] = valid[:, model.num_prefix_tokens :].to(torch.uint8)
    return outputs


CHECKS: dict[str, Callable[[Case], dict[str, Tensor]]] = {
    "models/sparsifiner.py Attention": attention_or_reconstruction,
    "losses.py attention reconstruction": reconstruction,
    "models/sparsifiner.py Sparsifiner": network,
    "models/sparsifiner_lvvit.py SparsifinerLVViT": network,
    "models/sparsifiner_lvvit.py Attention": attention_or_reconstruction,
}
