"""The table of published pathology encoders and their preprocessing.

Plain data; torch is not imported. Sources: the model cards on the Hugging Face hub, the authors' repositories, and
TRIDENT (mahmoodlab/TRIDENT@a91fa84) for sizes, normalisation and precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["ENCODERS", "NORMALISATION", "NOT_BUILT", "EncoderRow"]

Interpolation = Literal["bilinear", "bicubic"]
Pooling = Literal["network", "class", "class+mean", "mean"]
Precision = Literal["float32", "bfloat16", "float16"]

#: Name -> mean and std of red, green and blue, of values in 0-1.
NORMALISATION: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "hoptimus": ((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517)),
    "hibou": ((0.7068, 0.5755, 0.7220), (0.1950, 0.2316, 0.1816)),
    "lunit": ((0.70322989, 0.53606487, 0.66096631), (0.21716536, 0.26081574, 0.20723464)),
}


@dataclass(frozen=True, kw_only=True)
class EncoderRow:
    """One published encoder.

    Attributes:
        kind: what builds it: timm, transformers, conch, ctranspath, keep, embedded (the bundled one), or remote
            (code in its repository).
        source: its repository on the Hugging Face hub; empty if its weights are not there.
        files: names of its weights files; the first that exists is used.
        architecture: the network's name in its library.
        options: keyword arguments of the architecture; classes of layers by their names in timm.layers.
        dim: width of its features.
        patch: side of a patch in pixels at `mpp`.
        mpp: micrometres a pixel.
        size: side of the network's input, in pixels; patches are resized to it.
        resize: where the authors resize to a larger side and crop the centre: that side.
        interpolation: how patches are resized.
        normalisation: a key of `NORMALISATION`.
        pooling: the features are what the network gives, its class token, that and the mean of the patch tokens, or
            the mean alone; register tokens never count.
        normalised: whether features are divided by their length.
        precision: what a GPU computes in.
        licence: of the weights, from their card.
        gated: whether the hub asks you to accept it first.
        needs: what else is required; empty if nothing.
        paper: arXiv or DOI.
    """

    kind: str = "timm"
    source: str
    files: tuple[str, ...] = ("model.safetensors", "pytorch_model.bin")
    architecture: str
    options: Mapping[str, Any] = field(default_factory=dict)
    dim: int
    patch: int = 224
    mpp: float = 0.5
    size: int = 224
    resize: int | None = None
    interpolation: Interpolation = "bilinear"
    normalisation: str = "imagenet"
    pooling: Pooling = "network"
    normalised: bool = False
    precision: Precision = "float16"
    licence: str
    gated: bool = False
    needs: str = ""
    paper: str


_SWIGLU = {"mlp_layer": "SwiGLUPacked", "act_layer": "silu"}
_VIRCHOW = {"init_values": 1e-5, "mlp_ratio": 5.3375, "global_pool": "", "dynamic_img_size": True, **_SWIGLU}
_HOPTIMUS: dict[str, Any] = {
    "architecture": "vit_giant_patch14_reg4_dinov2",
    "options": {"img_size": 224, "init_values": 1e-5, "global_pool": "token"},
    "dim": 1536,
    "normalisation": "hoptimus",
    "interpolation": "bicubic",
}
_KAIKO: dict[str, Any] = {
    "patch": 256,
    "normalisation": "half",
    "precision": "float32",
    "licence": "MIT",
    "paper": "arXiv:2404.15217",
}


def _kaiko(architecture: str, dim: int, **options: Any) -> EncoderRow:
    source = f"1aurent/{architecture}.kaiko_ai_towards_large_pathology_fms"
    named = {"dynamic_img_size": True, **options}
    return EncoderRow(source=source, architecture=architecture, options=named, dim=dim, **_KAIKO)


#: Name of an encoder (the same in YAML, command line, code and documents) -> what it is.
ENCODERS: dict[str, EncoderRow] = {
    "embedded": EncoderRow(
        kind="embedded",
        source="",
        architecture="resnet18",
        dim=160,
        patch=128,
        size=128,
        interpolation="bicubic",
        precision="float32",
        licence="Apache-2.0",
        paper="for demonstration; embedded/README.txt",
    ),
    "resnet50": EncoderRow(
        source="timm/resnet50.tv_in1k",
        architecture="resnet50",
        options={"features_only": True, "out_indices": [3]},
        dim=1024,
        patch=256,
        precision="float32",
        licence="BSD-3-Clause",
        paper="arXiv:2004.09666",
    ),
    "uni": EncoderRow(
        source="MahmoodLab/UNI",
        architecture="vit_large_patch16_224",
        options={"init_values": 1e-5, "dynamic_img_size": True},
        dim=1024,
        patch=256,
        licence="CC-BY-NC-ND-4.0",
        gated=True,
        paper="doi:10.1038/s41591-024-02857-3",
    ),
    "uni2-h": EncoderRow(
        source="MahmoodLab/UNI2-h",
        architecture="vit_giant_patch14_224",
        options={
            "depth": 24,
            "num_heads": 24,
            "init_values": 1e-5,
            "embed_dim": 1536,
            "mlp_ratio": 2.66667 * 2,
            "no_embed_class": True,
            "reg_tokens": 8,
            "dynamic_img_size": True,
            **_SWIGLU,
        },
        dim=1536,
        patch=256,
        precision="bfloat16",
        licence="CC-BY-NC-ND-4.0",
        gated=True,
        paper="doi:10.1038/s41591-024-02857-3",
    ),
    "virchow": EncoderRow(
        source="paige-ai/Virchow",
        architecture="vit_huge_patch14_224",
        options=_VIRCHOW,
        dim=2560,
        interpolation="bicubic",
        pooling="class+mean",
        licence="Apache-2.0",
        gated=True,
        paper="arXiv:2309.07778",
    ),
    "virchow2": EncoderRow(
        source="paige-ai/Virchow2",
        architecture="vit_huge_patch14_224",
        options={**_VIRCHOW, "reg_tokens": 4},
        dim=2560,
        interpolation="bicubic",
        pooling="class+mean",
        licence="CC-BY-NC-ND-4.0",
        gated=True,
        paper="arXiv:2408.00738",
    ),
    "gigapath": EncoderRow(
        source="prov-gigapath/prov-gigapath",
        architecture="vit_giant_patch14_dinov2",
        options={
            "img_size": 224,
            "patch_size": 16,
            "embed_dim": 1536,
            "depth": 40,
            "num_heads": 24,
            "mlp_ratio": 5.33334,
            "global_pool": "token",
            "init_values": 1e-5,
        },
        dim=1536,
        patch=256,
        resize=256,
        interpolation="bicubic",
        licence="Prov-GigaPath licence (research only)",
        gated=True,
        paper="doi:10.1038/s41586-024-07441-w",
    ),
    "h-optimus-0": EncoderRow(
        source="bioptimus/H-optimus-0", licence="Apache-2.0", gated=True, paper="hf:bioptimus/H-optimus-0", **_HOPTIMUS
    ),
    "h-optimus-1": EncoderRow(
        source="bioptimus/H-optimus-1",
        licence="CC-BY-NC-ND-4.0",
        gated=True,
        paper="hf:bioptimus/H-optimus-1",
        **_HOPTIMUS,
    ),
    "h0-mini": EncoderRow(
        source="bioptimus/H0-mini",
        architecture="vit_base_patch14_reg4_dinov2",
        options={"img_size": 224, "init_values": 1e-5, "mlp_ratio": 2.66667 * 2, "global_pool": "", **_SWIGLU},
        dim=1536,
        interpolation="bicubic",
        normalisation="hoptimus",
        pooling="class+mean",
        licence="CC-BY-NC-ND-4.0",
        gated=True,
        paper="arXiv:2501.16239",
    ),
    "phikon": EncoderRow(
        kind="transformers",
        source="owkin/phikon",
        architecture="ViTModel",
        options={"own": {"add_pooling_layer": False}},
        dim=768,
        pooling="class",
        precision="float32",
        licence="Owkin licence (non-commercial)",
        paper="doi:10.1101/2023.07.21.23292757",
    ),
    "phikon-v2": EncoderRow(
        kind="transformers",
        source="owkin/phikon-v2",
        architecture="Dinov2Model",
        options={"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "patch_size": 16},
        dim=1024,
        pooling="class",
        precision="float32",
        licence="Owkin licence (non-commercial)",
        paper="arXiv:2409.09173",
    ),
    "midnight-12k": EncoderRow(
        kind="transformers",
        source="kaiko-ai/midnight",
        architecture="Dinov2Model",
        options={
            "hidden_size": 1536,
            "num_hidden_layers": 40,
            "num_attention_heads": 24,
            "image_size": 518,
            "use_swiglu_ffn": True,
        },
        dim=3072,
        normalisation="half",
        pooling="class+mean",
        licence="MIT",
        paper="arXiv:2504.05186",
    ),
    "openmidnight": EncoderRow(
        source="SophontAI/OpenMidnight",
        files=("teacher_checkpoint_load.pt",),
        architecture="vit_giant_patch14_reg4_dinov2",
        options={"img_size": 224, "global_pool": "token"},
        dim=1536,
        licence="see its card",
        gated=True,
        paper="hf:SophontAI/OpenMidnight",
    ),
    "gpfm": EncoderRow(
        source="majiabo/GPFM",
        files=("GPFM.pth",),
        architecture="vit_large_patch14_dinov2",
        options={"img_size": 224, "init_values": 1e-5, "global_pool": "token"},
        dim=1024,
        licence="see its card",
        paper="doi:10.1038/s41551-025-01488-4",
    ),
    "conch": EncoderRow(
        kind="conch",
        source="MahmoodLab/CONCH",
        files=("pytorch_model.bin",),
        architecture="1",
        dim=512,
        patch=512,
        size=448,
        interpolation="bicubic",
        normalisation="clip",
        precision="float32",
        licence="CC-BY-NC-ND-4.0",
        gated=True,
        paper="doi:10.1038/s41591-024-02856-4",
    ),
    "conch-v1.5": EncoderRow(
        kind="conch",
        source="MahmoodLab/conchv1_5",
        files=("pytorch_model_vision.bin",),
        architecture="1.5",
        dim=768,
        patch=512,
        size=448,
        interpolation="bilinear",
        licence="CC-BY-NC-ND-4.0",
        gated=True,
        paper="arXiv:2411.19666",
    ),
    "keep": EncoderRow(
        kind="keep",
        source="Astaxanthin/KEEP",
        architecture="vit_large_patch16_224",
        dim=768,
        interpolation="bicubic",
        normalised=True,
        precision="float32",
        licence="MIT",
        paper="arXiv:2412.13126",
    ),
    "ctranspath": EncoderRow(
        kind="ctranspath",
        source="",
        files=("ctranspath.pth", "CHIEF_CTransPath.pth"),
        architecture="swin_tiny_patch4_window7_224",
        dim=768,
        patch=256,
        mpp=1.0,
        precision="float32",
        licence="GPL-3.0",
        needs="weights=ctranspath.pth, from github.com/Xiyue-Wang/TransPath, or CHIEF's from github.com/hms-dbmi/CHIEF",
        paper="doi:10.1016/j.media.2022.102559",
    ),
    "hibou-l": EncoderRow(
        kind="remote",
        source="histai/hibou-L",
        architecture="its repository's",
        dim=1024,
        interpolation="bicubic",
        normalisation="hibou",
        pooling="class",
        precision="float32",
        licence="Apache-2.0",
        gated=True,
        needs="trust=True: its repository's code runs",
        paper="arXiv:2406.05074",
    ),
    "hibou-b": EncoderRow(
        kind="remote",
        source="histai/hibou-b",
        architecture="its repository's",
        dim=768,
        interpolation="bicubic",
        normalisation="hibou",
        pooling="class",
        precision="float32",
        licence="Apache-2.0",
        needs="trust=True: its repository's code runs",
        paper="arXiv:2406.05074",
    ),
    "lunit-vits8": EncoderRow(
        source="1aurent/vit_small_patch8_224.lunit_dino",
        architecture="vit_small_patch8_224",
        options={"dynamic_img_size": True},
        dim=384,
        interpolation="bicubic",
        normalisation="lunit",
        precision="float32",
        licence="Lunit licence (non-commercial)",
        paper="arXiv:2212.04690",
    ),
    "lunit-vits16": EncoderRow(
        source="1aurent/vit_small_patch16_224.lunit_dino",
        architecture="vit_small_patch16_224",
        options={"dynamic_img_size": True},
        dim=384,
        interpolation="bicubic",
        normalisation="lunit",
        precision="float32",
        licence="Lunit licence (non-commercial)",
        paper="arXiv:2212.04690",
    ),
    "kaiko-vits8": _kaiko("vit_small_patch8_224", 384),
    "kaiko-vits16": _kaiko("vit_small_patch16_224", 384),
    "kaiko-vitb8": _kaiko("vit_base_patch8_224", 768),
    "kaiko-vitb16": _kaiko("vit_base_patch16_224", 768),
    "kaiko-vitl14": _kaiko("vit_large_patch14_reg4_dinov2", 1024, img_size=518),
}

_SCRIPT = "in a separate environment, trace its image part with torch.jit, then use torchscript:FILE with trust=True"

#: Known encoders that are not available here -> why, and an alternative.
NOT_BUILT: dict[str, str] = {
    "musk": f"it needs the package musk, which wants a timm before 1.0 and fairscale; {_SCRIPT}",
    "genbio-pathfm": f"its network is the authors' own code and in no library; {_SCRIPT}",
}
