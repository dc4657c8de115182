"""Encoders from files: rows of the table with small networks, and every other kind of name."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import Dinov2Config, Dinov2Model, ViTConfig, ViTImageProcessor, ViTModel

from regard.vision import create_model
from regard.vision.encoders import ENCODERS, build_encoder, encoder_fingerprint, weights
from regard.vision.encoders.build import build_network, encoder_of
from regard.vision.encoders.conch import Conch

SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2}


@pytest.fixture
def patches() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)


def drawn(network: nn.Module) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return {
        name: torch.randn_like(value) * 0.1 if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }


def small(name: str, **options: object) -> object:
    row = ENCODERS[name]
    size = 32 if row.architecture.find("patch14") < 0 else 28
    return replace(row, options={**row.options, "img_size": size, **SMALL, **options}, size=size, resize=None)


@pytest.mark.parametrize(
    "name",
    [
        "uni",
        "virchow2",
        "h0-mini",
        *(pytest.param(name, marks=pytest.mark.full) for name in ("uni2-h", "virchow", "gigapath", "h-optimus-0")),
        *(pytest.param(name, marks=pytest.mark.full) for name in ("gpfm", "lunit-vits8")),
    ],
)
def test_a_row_of_timm_computes_what_its_weights_say(name: str, patches: torch.Tensor) -> None:
    row = small(name)
    options = {key: getattr(timm.layers, value) if key == "mlp_layer" else value for key, value in row.options.items()}
    direct = timm.create_model(row.architecture, num_classes=0, **options).eval()
    direct.load_state_dict(state := drawn(direct))
    encoder = encoder_of(name, row, build_network(row, state, "there")).eval()
    tokens = direct.forward_features(encoder.prepare(patches))
    patch_mean = tokens[:, direct.num_prefix_tokens :].mean(dim=1)
    expected = torch.cat([tokens[:, 0], patch_mean], dim=1) if row.pooling == "class+mean" else tokens[:, 0]
    torch.testing.assert_close(encoder(patches), expected)
    assert expected.shape[1] == 32 * (
        row.dim // ENCODERS[name].options.get("embed_dim", row.dim) if row.pooling == "network" else 2
    )


def test_weights_of_dinov2s_own_code_are_translated(patches: torch.Tensor) -> None:
    row = small("openmidnight")
    network = build_network(row).eval()
    state = drawn(network)
    theirs = {}
    for name, value in state.items():
        name = (
            re.sub(r"ls([12])\.gamma", r"ls\1.gamma", name).replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3")
        )
        theirs[name.replace("reg_token", "register_tokens")] = value
    positions = theirs.pop("pos_embed")
    theirs["pos_embed"] = torch.cat([torch.ones(1, 1, 32), positions], dim=1)
    theirs["cls_token"] = state["cls_token"] - 1
    theirs["mask_token"] = torch.zeros(1, 32)
    network.load_state_dict(state)
    again = encoder_of("openmidnight", row, build_network(row, theirs, "there")).eval()
    torch.testing.assert_close(again(patches), encoder_of("openmidnight", row, network)(patches))


@pytest.mark.parametrize("name", ["phikon", "phikon-v2", "midnight-12k"])
def test_a_row_of_transformers_reads_the_names_of_its_file(name: str, patches: torch.Tensor, tmp_path: Path) -> None:
    own = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 16}
    own |= {"intermediate_size": 64} if name == "phikon" else {}
    row = replace(ENCODERS[name], options={**ENCODERS[name].options, **own}, size=32)
    cls, config = (ViTModel, ViTConfig) if name == "phikon" else (Dinov2Model, Dinov2Config)
    direct = cls(config(**{key: value for key, value in row.options.items() if key != "own"})).eval()
    direct.load_state_dict(drawn(direct))
    direct.save_pretrained(tmp_path)
    given, source = weights.find_weights(name, row, tmp_path)
    assert any("attention.attention.query" in key for key in given)
    encoder = encoder_of(name, row, build_network(row, given, source)).eval()
    tokens = direct(pixel_values=encoder.prepare(patches)).last_hidden_state
    expected = torch.cat([tokens[:, 0], tokens[:, 1:].mean(dim=1)], dim=1) if name == "midnight-12k" else tokens[:, 0]
    torch.testing.assert_close(encoder(patches), expected)
    with pytest.raises(ValueError, match=r"missing: .*layernorm\.weight"):
        build_network(row, {key: value for key, value in given.items() if "layernorm.weight" not in key}, "FILE")


def test_conchs_pooler_is_attention_from_one_query(patches: torch.Tensor) -> None:
    row = replace(ENCODERS["conch-v1.5"], options=SMALL, size=32, dim=16)
    network = build_network(row)
    state = drawn(network)
    theirs = dict(state)
    theirs["trunk.pos_embed"] = torch.randn(1, 17, 32)  # 4 x 4 positions, for 2 x 2 here
    encoder = encoder_of("conch-v1.5", row, build_network(row, theirs, "there")).eval()
    pooler = encoder.network.attn_pool_contrast
    tokens = encoder.network.trunk.forward_features(encoder.prepare(patches))
    keys, values = (pooler.ln_k(tokens) @ state["attn_pool_contrast.to_kv.weight"].T).chunk(2, dim=-1)
    query = pooler.ln_q(state["attn_pool_contrast.query"]) @ state["attn_pool_contrast.to_q.weight"].T
    heads = []
    for part in range(8):
        columns = slice(2 * part, 2 * part + 2)
        weighed = (query[:, columns] @ keys[..., columns].transpose(1, 2) / 2**0.5).softmax(dim=-1) @ values[
            ..., columns
        ]
        heads.append(weighed[:, 0])
    expected = encoder.network.ln_contrast(torch.cat(heads, dim=1) @ state["attn_pool_contrast.to_out.weight"].T)
    torch.testing.assert_close(encoder(patches), expected)
    assert encoder.network.trunk.pos_embed.shape == (1, 5, 32)


def test_conch_leaves_its_words_out(patches: torch.Tensor) -> None:
    row = replace(ENCODERS["conch"], options=SMALL, size=32, dim=16)
    network = Conch("1", dim=16, size=32, trunk=SMALL)
    state = drawn(network)
    theirs = {f"visual.{name}": value for name, value in state.items()}
    theirs |= {"text.cls_emb": torch.zeros(3), "logit_scale": torch.zeros(()), "visual.ln_caption.bias": torch.zeros(3)}
    encoder = encoder_of("conch", row, build_network(row, theirs, "there")).eval()
    network.load_state_dict(state)
    torch.testing.assert_close(encoder(patches), network.eval()(encoder.prepare(patches)))


def test_keep_reads_what_transformers_called_weight_and_has_length_one(patches: torch.Tensor) -> None:
    row = replace(ENCODERS["keep"], options={**SMALL, "img_size": 32}, size=32, dim=16)
    state = drawn(build_network(row))
    theirs = {name.replace(".gamma", ".weight"): value for name, value in state.items()} | {"text.x": torch.zeros(1)}
    encoder = encoder_of("keep", row, build_network(row, theirs, "there")).eval()
    assert torch.equal(encoder.network.visual.blocks[1].ls2.gamma, state["visual.blocks.1.ls2.gamma"])
    torch.testing.assert_close(encoder(patches).norm(dim=1), torch.ones(2))


def test_ctranspath_reads_the_old_names_of_a_swin(patches: torch.Tensor) -> None:
    options = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2), "img_size": 224}
    row = replace(ENCODERS["ctranspath"], options=options, dim=128)
    network = build_network(row).eval()
    state = drawn(network)
    state |= {name: value.abs() for name, value in state.items() if name.endswith("running_var")}
    network.load_state_dict(state)
    theirs = {
        re.sub(r"layers\.(\d)\.downsample", lambda found: f"layers.{int(found[1]) - 1}.downsample", name): value
        for name, value in state.items()
    }
    theirs |= {"layers.0.blocks.0.attn.relative_position_index": torch.zeros(1), "head.weight": torch.zeros(3, 128)}
    encoder = encoder_of("ctranspath", row, build_network(row, theirs, "there")).eval()
    torch.testing.assert_close(encoder(patches), network(encoder.prepare(patches)))
    with pytest.raises(ValueError, match=r"not on the hub; give weights=ctranspath\.pth"):
        build_encoder("ctranspath")


def test_resnet50_is_cut_after_its_third_stage_and_loads_a_file(patches: torch.Tensor, tmp_path: Path) -> None:
    torch.manual_seed(1)
    whole = timm.create_model("resnet50", num_classes=7).eval()
    torch.save({"model": whole.state_dict()}, tmp_path / "resnet.pth")
    encoder = build_encoder("resnet50", weights=tmp_path / "resnet.pth")
    (third,) = whole.forward_intermediates(encoder.prepare(patches), indices=[3], intermediates_only=True)
    torch.testing.assert_close(encoder(patches), third.mean(dim=(2, 3)))
    assert (encoder.patch, encoder.mpp, encoder.size, encoder.dim) == (256, 0.5, 224, 1024)
    assert not encoder.training
    assert not any(weight.requires_grad for weight in encoder.parameters())
    with pytest.raises(
        ValueError, match=r"resnet\.pth does not load into vit_small_patch16_224: it looks like a ResNet"
    ):
        build_encoder("lunit-vits16", weights=tmp_path / "resnet.pth")


def test_a_folder_of_regard_train_is_an_encoder(patches: torch.Tensor, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = create_model("vit_tiny_patch16_224", attention="van", img_size=32, num_classes=3, **SMALL)
    folder = tmp_path / "run" / "model"
    timm.models.save_for_hf(model, folder, safe_serialization=True)
    encoder = build_encoder(str(folder))
    assert (encoder.name, encoder.dim, encoder.size, encoder.patch, encoder.mpp) == ("run", 32, 32, 224, 0.5)
    model.eval().reset_classifier(0)
    torch.testing.assert_close(encoder(patches), model(encoder.prepare(patches)))
    config = json.loads((folder / "config.json").read_text())
    config["encoder"] = {"name": "demo", "patch": 64, "mpp": 1.0, "pooling": "mean"}
    (folder / "config.json").write_text(json.dumps(config))
    again = build_encoder(str(folder))
    assert (again.name, again.patch, again.mpp) == ("demo", 64, 1.0)
    assert encoder_fingerprint(again) != encoder_fingerprint(encoder)
    config["encoder"] = {"mmp": 1.0}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"not an encoder folder: config\.json has encoder\.mmp"):
        build_encoder(str(folder))
    (folder / "model.safetensors").unlink()
    config.pop("encoder")
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"holds no weights; put one of model\.safetensors"):
        build_encoder(str(folder))


def test_any_model_of_timm_or_ours_with_a_file(patches: torch.Tensor, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = timm.create_model("test_vit", num_classes=5)
    save_file(model.state_dict(), tmp_path / "file.safetensors")
    encoder = build_encoder("timm:test_vit", weights=tmp_path / "file.safetensors")
    model.eval().reset_classifier(0)
    torch.testing.assert_close(encoder(patches), model(encoder.prepare(patches)))
    assert (encoder.name, encoder.dim, encoder.size) == ("timm:test_vit", 64, 160)


def test_a_vision_model_of_transformers_in_a_folder(patches: torch.Tensor, tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, image_size=32)
    model = ViTModel(config).eval()
    model.save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.1] * 3, image_std=[0.2] * 3).save_pretrained(
        tmp_path
    )
    encoder = build_encoder(f"hf:{tmp_path}")
    assert encoder.mean.flatten().tolist() == pytest.approx([0.1] * 3)
    assert (encoder.size, encoder.dim) == (32, 32)
    expected = model(pixel_values=encoder.prepare(patches)).last_hidden_state[:, 0]
    torch.testing.assert_close(encoder(patches), expected)


REMOTE = """
import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
class Config(PretrainedConfig):
    model_type = "strange"
class Strange(PreTrainedModel):
    config_class = Config
    main_input_name = "pixel_values"
    def __init__(self, config):
        super().__init__(config)
        self.cls_token = torch.nn.Parameter(torch.ones(1, 1, 3))
        self.post_init()
    def forward(self, pixel_values):
        tokens = pixel_values.flatten(2).transpose(1, 2)
        first = self.cls_token.expand(len(tokens), -1, -1)
        return BaseModelOutputWithPooling(last_hidden_state=torch.cat([first, tokens], 1))
"""


def test_code_from_a_repository_runs_only_when_it_is_trusted(
    patches: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "remote"
    folder.mkdir()
    (folder / "strange.py").write_text(REMOTE)
    named = {"AutoConfig": "strange.Config", "AutoModel": "strange.Strange"}
    (folder / "config.json").write_text(json.dumps({"model_type": "strange", "auto_map": named}))
    save_file({"cls_token": torch.full((1, 1, 3), 4.0)}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"hibou-l runs code from https://huggingface\.co/histai/hibou-L.*trust=True"):
        build_encoder("hibou-l", weights=folder)
    with pytest.raises(ValueError, match=r"its own code, which runs only with trust=True"):
        build_encoder(f"hf:{folder}")
    assert build_encoder("hibou-l", weights=folder, trust=True)(patches).tolist() == [[4.0] * 3] * 2


def test_an_image_tower_of_open_clip(patches: torch.Tensor, tmp_path: Path) -> None:
    open_clip = pytest.importorskip("open_clip")
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 8, "vocab_size": 32, "width": 32, "heads": 2, "layers": 1},
    }
    (tmp_path / "tiny-tower.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-tower.json")
    torch.manual_seed(1)
    model = open_clip.create_model("tiny-tower").eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    encoder = build_encoder("open_clip:tiny-tower", weights=tmp_path / "model.safetensors")
    torch.testing.assert_close(encoder(patches), model.encode_image(encoder.prepare(patches)))
    assert (encoder.dim, encoder.size, encoder.interpolation) == (16, 32, "bicubic")
    with pytest.raises(ValueError, match=r"open_clip:tiny-tower has no weights; write open_clip:tiny-tower@TAG"):
        build_encoder("open_clip:tiny-tower")
    with pytest.raises(ValueError, match="cannot load open_clip:nothing@here"):
        build_encoder("open_clip:nothing@here")


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_torchscript_runs_only_when_it_is_trusted(patches: torch.Tensor, tmp_path: Path) -> None:
    file = tmp_path / "mean.pt"
    torch.jit.script(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())).save(str(file))
    with pytest.raises(ValueError, match=r"mean\.pt is a program, not only weights; .*trust=True"):
        build_encoder(f"torchscript:{file}")
    (tmp_path / "mean.json").write_text('{"size": 32, "mean": [0, 0, 0], "std": [1, 1, 1], "mpp": 1.0}')
    encoder = build_encoder(f"torchscript:{file}", trust=True)
    assert (encoder.dim, encoder.mpp) == (3, 1.0)
    torch.testing.assert_close(encoder(patches), patches.float().mean(dim=(1, 2)) / 255, atol=0.01, rtol=0)
    (tmp_path / "mean.json").write_text('{"sise": 32}')
    with pytest.raises(ValueError, match="has the unknown entry 'sise'"):
        build_encoder(f"torchscript:{file}", trust=True)


def test_a_hub_that_refuses_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError

    def refuse(error: Exception) -> None:
        def fetch(source: str, file: str) -> str:
            raise error

        monkeypatch.setattr(weights, "hf_hub_download", fetch)

    refuse(LocalEntryNotFoundError("offline"))
    with pytest.raises(ValueError, match=r"cannot get the weights of phikon .*cannot be reached.*give weights=FILE"):
        build_encoder("phikon")
    response = type("Response", (), {"headers": {}, "request": None, "status_code": 403})()
    refuse(GatedRepoError("gated", response=response))
    with pytest.raises(
        ValueError, match=r"accept the licence \(CC-BY-NC-ND-4\.0\) at https://huggingface\.co/MahmoodLab/UNI"
    ):
        build_encoder("uni")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("uni3", {}, r"no encoder is called 'uni3'; did you mean 'uni'\? Known: embedded, resnet50, uni,"),
        ("timm:vit_nothing", {}, "no model is called 'vit_nothing'"),
        ("hf:/nowhere", {}, r"cannot load the encoder hf:/nowhere"),
        ("hf:x/y", {"weights": "file"}, "has its own weights"),
        ("uni", {"precision": "half"}, "no precision is called 'half'"),
    ],
)
def test_a_wrong_name_says_what_would_do(name: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_encoder(name, **options)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing"):
        build_encoder("uni", weights=tmp_path / "nothing.bin")
    with pytest.raises(FileNotFoundError, match=r"holds none of model\.safetensors, pytorch_model\.bin"):
        build_encoder("uni", weights=tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no TorchScript file"):
        build_encoder("torchscript:nothing.pt")
