"""HaloNet: timm's attention layer and timm's networks."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import timm
import torch.nn.functional as F
from case import Case
from torch import Tensor

from regard.vision.attention.halonet import HaloAttention
from regard.vision.backbones.halonet import HaloLayer, checkpoint_filter_fn

NETWORKS = [
    "halonet_h1",
    "halonet26t",
    "sehalonet33ts",
    "halonet50ts",
    "eca_halonext26ts",
    "haloregnetz_b",
    "halo2botnet50ts_256",
    "lamhalobotnet50ts_256",
]


def only_input(case: Case) -> Tensor:
    (x,) = case.inputs.values()
    return x


def attention(case: Case, padded: bool = False) -> dict[str, Tensor]:
    options = {key: value for key, value in case.config.items() if key not in ("dim", "feat_size")}
    module = HaloAttention(case.config["dim"], proj=False, **options)
    module.load_state_dict(checkpoint_filter_fn(case.state, module))
    x = only_input(case).permute(0, 2, 3, 1)  # NHWC, NCHW in memory
    ours = module(x)
    layer = HaloLayer(case.config["dim"], **options)
    layer.load_state_dict(module.state_dict())
    assert (layer(only_input(case)).permute(0, 2, 3, 1) == ours).all()
    if padded and not options.get("qkv_bias"):  # the reference saw zeros where we see nothing
        block, (height, width) = module.block_size, x.shape[1:3]
        whole = module(F.pad(x, (0, 0, 0, -width % block, 0, -height % block)))
        assert (whole[:, : ours.shape[1], : ours.shape[2]] - ours).abs().max() < 1e-5
    return {"y": ours.permute(0, 3, 1, 2)}


def network(case: Case, name: str | None = None) -> dict[str, Tensor]:
    config = dict(case.config)
    quoted = re.search(r"create_model\(['\"]([^'\"]+)", case.reference)
    name = config.pop("model", None) or name or (quoted and quoted[1])
    config.pop("pretrained", None)
    model = timm.create_model(f"regard_{name}", **config)
    model.load_state_dict(checkpoint_filter_fn(case.state, model))
    outputs: dict[str, Tensor] = {}
    parts = {f"stage{number}": stage for number, stage in enumerate(model.stages)}
    for part, module in (parts | {"stem": model.stem, "final_conv": model.final_conv}).items():
        module.register_forward_hook(lambda _, __, out, part=part: outputs.__setitem__(part, out))
    outputs["y"] = model.eval()(only_input(case))
    return outputs


CHECKS: dict[str, Callable[[Case], dict[str, Tensor]]] = {
    "timm.layers.halo_attn.HaloAttn": attention,
    "timm.layers.halo_attn.HaloAttn on zero-padded input": partial(attention, padded=True),
    **{f"timm.create_model('{name}')": partial(network, name=name) for name in NETWORKS},
}
