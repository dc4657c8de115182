import pytest
import timm
import torch
from torch import Tensor, nn

from regard.vision.backbones import halonet
from regard.vision.backbones.halonet import HaloLayer, checkpoint_filter_fn

TWINS = ["halonet_h1", "halonet26t", "halonet50ts", "eca_halonext26ts", "haloregnetz_b", "halo2botnet50ts_256"]


def network(name: str = "regard_halonet26t", **options: object) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, **({"num_classes": 5} | options)).eval()


def images(height: int = 70, width: int = 45, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("halonet_h0", 5.502),
        ("regard_halonet_h1", 8.100),
        ("halonet_h2", 9.406),
        ("halonet_h3", 11.843),
        ("halonet_h4", 19.103),
        ("halonet_h5", 30.719),
        ("halonet_h6", 43.458),
        ("halonet_h7", 67.435),
        ("regard_halonet26t", 12.480),
        ("regard_eca_halonext26ts", 10.757),
        ("regard_sehalonet33ts", 13.692),
        ("regard_halonet50ts", 22.733),
        ("regard_haloregnetz_b", 11.680),
        ("regard_halo2botnet50ts_256", 22.635),
        ("regard_lamhalobotnet50ts_256", 22.570),
    ],
)
def test_sizes_are_the_published_ones(name: str, millions: float) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, abs=6e-4)


@pytest.mark.parametrize("name", TWINS)
def test_a_twin_has_the_state_dict_of_timms_network_and_no_layer_of_timm(name: str) -> None:
    with torch.device("meta"):
        ours, theirs = timm.create_model(f"regard_{name}"), timm.create_model(name)
    assert {key: tensor.shape for key, tensor in ours.state_dict().items()} == {
        key: tensor.shape for key, tensor in theirs.state_dict().items()
    }
    layers = [type(module).__name__ for module in ours.modules()]
    assert "HaloAttn" not in layers
    assert layers.count("HaloLayer") == [type(module).__name__ for module in theirs.modules()].count("HaloAttn") > 0


def test_a_twin_trains_as_timms_network_does() -> None:
    ours, theirs = network().train(), network("halonet26t").train()
    theirs.load_state_dict(ours.state_dict())
    losses = [model(images(256, 256, batch=1)).square().sum() for model in (ours, theirs)]
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-4)
    for loss in losses:
        loss.backward()
    one, other = (model.stages[2][1].self_attn.kv.weight.grad for model in (ours, theirs))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-2 * other.abs().max().item())


def test_initial_weights_are_those_of_timm() -> None:
    ours, theirs = network(), network("halonet26t")
    for (name, one), other in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        mine, timms = (tensor.float().std(correction=0).item() for tensor in (one, other))
        assert mine == pytest.approx(timms, rel=0.2, abs=1e-6), name


@pytest.mark.parametrize("name", TWINS)
def test_preprocessing_and_weights_are_those_of_timm(name: str) -> None:
    ours, theirs = (timm.get_pretrained_cfg(found).to_dict() for found in (f"regard_{name}", name))
    for key in ("url", "hf_hub_id", "mean", "std", "crop_pct", "interpolation", "input_size", "tag"):
        assert ours.get(key) == theirs.get(key), key


def test_every_published_accuracy_belongs_to_published_weights() -> None:
    assert set(halonet.TOP1) == set(timm.list_pretrained("regard_*halo*"))


@pytest.mark.parametrize(
    "wrap",
    [pytest.param("plain", marks=pytest.mark.full), pytest.param("state_dict", marks=pytest.mark.full), "parallel"],
)
def test_every_published_naming_loads(wrap: str, tmp_path: object) -> None:
    source = network("halonet26t", num_classes=1000)
    state = {("module." if wrap == "parallel" else "") + name: value for name, value in source.state_dict().items()}
    torch.save(state if wrap == "plain" else {"epoch": 1, "state_dict": state}, tmp_path / "file.pth")
    overlay = {"file": str(tmp_path / "file.pth")}
    loaded = network(pretrained=True, pretrained_cfg_overlay=overlay)
    assert torch.equal(loaded.stages[3][0].self_attn.kv.weight, source.stages[3][0].self_attn.kv.weight)
    assert loaded.head.fc.out_features == 5
    assert list(checkpoint_filter_fn(state, source)) == list(source.state_dict())


@pytest.mark.parametrize("name", ["regard_haloregnetz_b", "halonet_h0"])
def test_odd_images_go_through(name: str) -> None:
    model = network(name)
    assert model(images()).shape == (2, 5)
    assert model(images(33, 224, batch=1)).isfinite().all()


def test_wide_values_keep_the_queries_narrow() -> None:
    with torch.device("meta"):
        block = timm.create_model("halonet_h6").stages[1][0]
    assert block.self_attn.q.out_channels == 128
    assert block.conv1_1x1.conv.out_channels == 128
    assert block.conv3_1x1.conv.in_channels == 3 * 128


def test_it_does_what_timm_users_expect() -> None:
    model = network("halonet_h0", in_chans=4, drop_path_rate=0.1)
    x = torch.randn(1, 4, 70, 45)
    features = model.forward_features(x)
    assert features.shape == (1, 256, 3, 2)
    last, maps = model.forward_intermediates(x)
    torch.testing.assert_close(last, features)
    assert [tuple(found.shape[1:]) for found in maps[1:]] == [(32, 18, 12), (64, 9, 6), (128, 5, 3), (256, 3, 2)]
    model.reset_classifier(3)
    assert model(x).shape == (1, 3)
    assert model.get_classifier().out_features == 3
    assert len(timm.models.group_parameters(model, model.group_matcher(coarse=True))) > 4
    found = network("halonet_h0", features_only=True, out_indices=(1, 2))(images())
    assert [tuple(one.shape[1:]) for one in found] == [(32, 18, 12), (64, 9, 6)]


def test_checkpointing_changes_neither_logits_nor_gradients() -> None:
    plain, saving = network("halonet_h0"), network("halonet_h0")
    saving.set_grad_checkpointing()
    for model in (plain, saving):
        model(images()).square().sum().backward()
    for (name, one), other in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=lambda text, name=name: f"{name}: {text}")


def test_a_step_of_training_reaches_every_parameter() -> None:
    model = network("halonet_h0", zero_init_last=False).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    model(images()).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    optimizer.step()
    assert model(images()).isfinite().all()


def test_other_types_are_taken() -> None:
    model = network("halonet_h0", dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model(images().bfloat16()).dtype == torch.bfloat16


def test_a_saved_folder_loads_bit_equal(tmp_path: object) -> None:
    model = network("halonet_h0")
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert torch.equal(again(images()), model(images()))


def test_the_layer_takes_what_timm_gives() -> None:
    layer = HaloLayer(16, feat_size=(7, 5), num_heads=2, dtype=torch.float64)
    assert layer(torch.rand(1, 16, 7, 5, dtype=torch.float64)).dtype == torch.float64
    layer.init_weights(zero_init_last=True)
