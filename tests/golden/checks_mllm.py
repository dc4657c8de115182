"""Edits of attention: VAR (seilk/VisAttnSink), PAI (LALBJ/PAI), rebalancing (hasanar1f/llava-hallunication-fix), VHR.

The files give attention, or queries and keys, of one layer; they run here through the same call and the same attention
function as in a model. Weights come out of it as the heads' outputs for values that are the identity.
"""

from __future__ import annotations

import torch
from case import Case
from fill import normal
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel

from regard.mllm.interventions.pai import PAI, raised
from regard.mllm.interventions.rebalance import outliers, strongest
from regard.mllm.interventions.var import VAR, SinkColumns, redistributed
from regard.mllm.interventions.vhr import head_divergence
from regard.mllm.session.attention import EDITS, edited_attention
from regard.mllm.session.contract import Call, Edit, Intervention
from regard.mllm.session.layer_edits import LayerEdits
from regard.mllm.session.running_call import RunningCall
from regard.mllm.session.sinks import sink_strength

TOLERANCES = {"attention": 1e-6, "heads_concat": 1e-5}


def running(
    intervention: Intervention, *, batch: int, prompt: int, image: range, queries: int, keys: int, width: int = 64
) -> tuple[RunningCall, LayerEdits]:
    """A call in the middle of the pass that the file is about, in a model of one layer."""
    with torch.device("meta"):
        model = LlamaModel(LlamaConfig(hidden_size=width, intermediate_size=8, num_hidden_layers=1, vocab_size=8))
    columns = torch.zeros(batch, prompt, dtype=torch.bool)
    columns[:, image.start : image.stop] = True
    valid = torch.ones_like(columns)
    call = RunningCall(model, {}, columns, valid, batch=batch, layers=1, interventions=[intervention])
    work = LayerEdits(0)
    work.start(call)
    call.advance(keys, queries)
    call.reading = queries == keys
    return call, work


def attend(work: LayerEdits, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    module = nn.Module()
    EDITS[id(module)] = work
    output, _ = edited_attention(module, query, key, value, None)
    del EDITS[id(module)]
    return output


def weights_and_heads(work: LayerEdits, case: Case, batch: int) -> dict[str, Tensor]:
    c, name = case.config, case.metadata["case"]
    heads, keys, width = c["H"], c["K"], c["head_dim"]
    query = normal(f"input.q.{name}", (batch, heads, c["Q"], width))
    key, value = (normal(f"input.{part}.{name}", (batch, heads, keys, width)) for part in "kv")
    identity = torch.eye(keys).expand(batch, heads, keys, keys)
    return {
        "attention": attend(work, query, key, identity).transpose(1, 2),
        "heads_concat": attend(work, query, key, value).flatten(2),
    }


def pai(case: Case) -> dict[str, Tensor]:
    c = case.config
    image = range(c["img_start"], c["img_end_exclusive"])
    prompt = c["K"] if c["Q"] == c["K"] else c["K"] - 1
    intervention = PAI(alpha=c["alpha"], gamma=1.0, layers="all")
    _, work = running(intervention, batch=c["B"], prompt=prompt, image=image, queries=c["Q"], keys=c["K"])
    return weights_and_heads(work, case, c["B"])


class Given:
    """An intervention that raises scores by factors that are known."""

    name = "given"

    def __init__(self, factor: Tensor) -> None:
        self.factor = factor

    def begin(self, call: Call) -> Edit:
        return Edit(
            layers=[0], edit_logits=lambda layer, z, view: raised(z, view.where_edited(view.of_prompt(self.factor)))
        )


def rebalance(case: Case) -> dict[str, Tensor]:
    c, name = case.config, case.metadata["case"]
    patches, heads = c["patches"], c["vit_heads"]
    shape = (1, heads, patches + 1, patches + 1)
    scores = [c["vit_score_scale"] * normal(f"input.vit_scores.{name}.{i}", shape) for i in range(c["vit_layers"])]
    paid = [score.softmax(-1)[:, :, 0, 1:].sum(dim=1) for score in scores]  # of the class token, by layer
    everywhere = torch.ones(1, patches, dtype=torch.bool)
    summary = outliers(paid[-2], everywhere)
    local = strongest(paid[0], everywhere, c["local_token_ratio"]) & ~summary
    image = range(c["img_start"], c["img_start"] + patches)
    prompt = c["K"] if c["Q"] == c["K"] else c["K"] - 1
    factor = torch.zeros(1, prompt)
    factor[:, image.start : image.stop] = c["alpha"] * local + c["beta"] * summary
    _, work = running(Given(factor), batch=1, prompt=prompt, image=image, queries=c["Q"], keys=c["K"])
    return weights_and_heads(work, case, 1) | {
        "local_tokens_sorted": local[0].nonzero().flatten(),
        "summary_tokens_sorted": summary[0].nonzero().flatten(),
    }


def var(case: Case) -> dict[str, Tensor]:
    c, weights = case.config, case.inputs["attention"]
    hidden = normal(f"input.hidden.{case.metadata['case']}", (1, c["tokens"], c["hidden"]))
    for token, dimension, value in c["spikes"]:
        hidden[0, token, dimension] = value
    intervention = VAR(
        transfer=1 - c["p"],
        min_image=c["summ"],
        min_free=1 - c["rho"],
        threshold=c["tau"],
        dimensions=c["sink_dims"],
        layers="all",
    )
    image = range(c["image_start"], c["image_start"] + c["image_len"])
    rows, keys = weights.shape[-2:]
    call, work = running(
        intervention, batch=1, prompt=c["tokens"], image=image, queries=rows, keys=keys, width=c["hidden"]
    )
    look = call.edits[0].on_hidden
    assert look is not None
    look(0, hidden)
    strength = sink_strength(hidden, c["sink_dims"])
    sinks = strength[0] > c["tau"]
    on_image = torch.zeros_like(sinks)
    on_image[image.start : image.stop] = True
    acts = bool((sinks & on_image).any())
    options = {"transfer": 1 - c["p"], "min_image": c["summ"], "min_free": 1 - c["rho"]}
    columns = SinkColumns.of((on_image & acts)[None], (sinks & acts)[None], **options)
    selected = redistributed(weights, columns.longer(keys).seen(0, keys))[1]
    return {
        "attention": work.edit_weights(weights),
        "phi": strength,
        "sink_tokens": sinks.nonzero().flatten(),
        "selected_bhq": selected.nonzero(),
    }


def vhr(case: Case) -> dict[str, Tensor]:
    with_image, without = case.inputs["with_image"], case.inputs["without_image"]
    found = head_divergence(with_image[None], without[None])
    factors = torch.where(found.selected[0], case.config["alpha"], 1.0)
    raw = head_divergence(with_image[None], without[None], outliers=False)
    zeroed = "vhd" in case.expected and bool((case.expected["vhd"] == 0).any())
    return {
        "vhd": (found if zeroed else raw).divergence[0],
        "ta": found.squared_norm[0],
        "outlier": found.outlier[0].to(torch.uint8),
        "selected": found.selected[0].to(torch.uint8),
        "scaled": with_image * factors[:, None],
    }


CHECKS = {
    "attention.py llama_new_forward": pai,
    "clip_encoder.py update_modpai_alpha + modPAI/attention.py llama_new_forward": rebalance,
    "src/logic/logic.py DimProspector+HeadFork+VARProcessor": var,
    "arXiv 2412.13949 eq.4,6,7 (official repo not obtainable; unverified against code)": vhr,
}
