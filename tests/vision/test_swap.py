import json
import logging
from pathlib import Path

import pytest
import timm
import torch

import regard
from regard.vision import create_model
from regard.vision.attention.softmax import SoftmaxAttention

VIT = {"img_size": (32, 80), "embed_dim": 48, "depth": 2, "num_heads": 3}


def image(height: int = 32, width: int = 80) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(1, 3, height, width)


def test_the_package_offers_it() -> None:
    assert regard.create_model is create_model


def test_without_attention_it_is_timm() -> None:
    assert type(create_model("test_resnet", num_classes=3)) is timm.models.ResNet


def test_what_timm_knows_of_the_host_stays_true() -> None:
    model = create_model("deit3_small_patch16_224.fb_in22k_ft_in1k", attention="van", depth=1)
    host = timm.create_model("deit3_small_patch16_224.fb_in22k_ft_in1k", depth=1)
    assert timm.data.resolve_data_config(model=model) == timm.data.resolve_data_config(model=host)
    assert model.pretrained_cfg["architecture"] == "regard_swapped"
    assert model.pretrained_cfg["crop_pct"] == 1.0


def test_a_saved_folder_remembers_options_size_and_tokens(tmp_path: Path) -> None:
    model = create_model(
        "vit_tiny_patch16_224",
        attention="ela",
        attention_options={"version": "L"},
        class_token=False,
        global_pool="avg",
        num_classes=3,
        **VIT,
    ).eval()
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    settings = json.loads((tmp_path / "config.json").read_text())
    assert settings["architecture"] == "regard_swapped"
    assert settings["model_args"]["attention_options"] == {"version": "L"}
    again = create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert again.blocks[0].attn.attention.conv.kernel_size == (7,)
    assert torch.equal(again(image()), model(image()))
    resized = create_model(f"local-dir:{tmp_path}", pretrained=True, img_size=(64, 48), num_classes=7)
    assert resized(image(64, 48)).shape == (1, 7)


def test_a_saved_folder_loads_strictly(tmp_path: Path) -> None:
    model = create_model("vit_tiny_patch16_224", attention="van", **VIT)
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    with pytest.raises(RuntimeError, match="Missing key"):
        create_model(f"local-dir:{tmp_path}", pretrained=True, depth=3)


@pytest.mark.parametrize("classes", [1000, 5])
def test_weights_of_the_host_load_and_the_rest_is_named(
    classes: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    host = create_model("vit_tiny_patch16_224", **VIT)
    torch.save(host.state_dict(), tmp_path / "host.pth")
    with caplog.at_level(logging.WARNING):
        model = create_model(
            "vit_tiny_patch16_224",
            attention="van",
            pretrained=True,
            pretrained_cfg_overlay={"file": str(tmp_path / "host.pth")},
            num_classes=classes,
            **VIT,
        )
    assert torch.equal(model.blocks[1].attn.qkv.weight, host.blocks[1].attn.qkv.weight)
    assert torch.equal(model.blocks[1].mlp.fc1.weight, host.blocks[1].mlp.fc1.weight)
    assert len(caplog.records) == 1
    message = caplog.records[0].getMessage()
    assert "Not used by the new model: nothing." in message
    assert "blocks.*.attn.attention.proj_1.weight" in message
    assert ("head.weight" in message) is (classes == 5)
    caplog.clear()
    model.load_state_dict(model.state_dict())
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("test_resnet", "layer4.*.conv2.weight"),
        ("inception_next_atto", "stages.*.blocks.*.token_mixer.dwconv_hw.weight"),
        ("test_efficientnet", "blocks.*.*.se.conv_reduce.weight"),
        ("mobilenetv2_050", None),
    ],
)
def test_weights_of_a_convolutional_host_load(
    name: str, missing: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    host = create_model(name)
    torch.save(host.state_dict(), tmp_path / "host.pth")
    overlay = {"file": str(tmp_path / "host.pth")}
    model = create_model(name, attention="van", pretrained=True, pretrained_cfg_overlay=overlay)
    message = caplog.records[-1].getMessage()
    assert (missing or "new model: nothing.") in message
    shared = model.state_dict().keys() & host.state_dict().keys()
    assert len(shared) > 0.6 * len(host.state_dict())
    for key in shared:
        assert torch.equal(model.state_dict()[key], host.state_dict()[key])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("poolformerv2_s12", {}),
        ("test_resnet", {}),
        ("inception_next_atto", {}),
        ("test_efficientnet", {}),
        ("vit_tiny_patch16_224", VIT),
    ],
)
def test_every_block_starts_with_its_own_initialisation(
    name: str, settings: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    attention = "regard.vision.attention.softmax:SoftmaxAttention"  # on a ViT, plain "softmax" is the host's
    fill = torch.nn.init.constant_
    monkeypatch.setattr(SoftmaxAttention, "init_weights", lambda self: fill(self.proj.weight, 2))
    model = create_model(name, attention=attention, **settings)
    blocks = [module for module in model.modules() if isinstance(module, SoftmaxAttention)]
    assert blocks
    assert all((block.proj.weight == 2).all() for block in blocks)


def test_feature_maps_of_a_staged_host() -> None:
    model = create_model("poolformerv2_s12", attention="van", attention_stages=[2], features_only=True)
    assert model.feature_info.channels() == [64, 128, 320, 512]
    assert [tuple(feature.shape[1:]) for feature in model(image(97, 130))] == [
        (64, 24, 32),
        (128, 12, 16),
        (320, 6, 8),
        (512, 3, 4),
    ]
    assert len(create_model("test_resnet", attention="van", features_only=True)(image())) == 5


@pytest.mark.parametrize("name", ["poolformerv2_s12", "resnet18", "inception_next_atto", "mobilenetv2_050"])
def test_only_the_chosen_stages_get_the_block(name: str) -> None:
    model = create_model(name, attention="ela", attention_stages=[1])
    swapped = {key.partition(".attention.")[0] for key in model.state_dict() if ".attention." in key}
    assert swapped
    assert all(name.startswith(("stages.1.", "layer2.", "blocks.1.")) for name in swapped)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_smal_patch16_224", "did you mean 'vit_small_patch16_224'"),
        ("swin_tiny_patch4_window7_224", "does not accept.*try 'poolformerv2_s12'.*vit_\\*"),
        ("convnext_tiny", "try 'inception_next_tiny'"),
        ("eva02_tiny_patch14_224", "try 'deit3_base_patch16_224'"),
        ("mobilenetv3_small_050", "try 'mobilenetv2_100'"),
        ("convformer_s18", "use poolformerv2_s12"),
        ("efficientnet_lite0", "no squeeze-and-excitation.*mobilenetv2_100"),
        ("resnetv2_50", "try 'resnet50'"),
        ("ecaresnet50d_pruned", "try 'ecaresnet50d'"),
    ],
)
def test_a_host_that_will_not_do_is_refused_with_another(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model(name, attention="van")


def test_wrong_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'van'"):
        create_model("test_resnet", attention="vann")
    with pytest.raises(ValueError, match="did you mean 'version'"):
        create_model("test_resnet", attention="ela", attention_options={"versoin": "L"})
    with pytest.raises(ValueError, match="no model is called 'resnet5'"):
        create_model("resnet5")
    with pytest.raises(ValueError, match="this host accepts one or more of 0, 1, 2, 3"):
        create_model("test_resnet", attention="van", attention_stages=[4])
    with pytest.raises(ValueError, match="cannot be chosen in test_efficientnet"):
        create_model("test_efficientnet", attention="van", attention_stages=[4])
    with pytest.raises(ValueError, match=r"need attention=\.\.\."):
        create_model("test_resnet", attention_options={"version": "L"})
