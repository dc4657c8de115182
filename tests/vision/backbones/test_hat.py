import copy
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor

from regard import create_model
from regard.vision import checkpoints
from regard.vision.attention.plain.hat_network import PlainHAT
from regard.vision.backbones import hat, hat_layers
from regard.vision.backbones.hat import HAT, deduce, named, reflect, start_from

SMALL = {"dim": 12, "depths": (2, 1), "num_heads": 2, "window_size": 4, "squeeze_factor": 6}


def small(**options: object) -> HAT:
    torch.manual_seed(0)
    return HAT(**(SMALL | options)).eval()


def image(height: int = 9, width: int = 14, channels: int = 3) -> Tensor:
    return torch.rand(2, channels, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        *(("hat_s_x2", 9_473_471), ("hat_s_x3", 9_658_111), ("hat_s_x4", 9_621_183)),
        *(("hat_x4", 20_772_507), ("hat_l_x4", 40_846_575)),
    ],
)
def test_sizes_are_the_published_ones(name: str, parameters: int) -> None:
    with torch.device("meta"), checkpoints.SkipInit():
        model = timm.create_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert named(deduce(model.state_dict())) == (name, {})


def test_every_published_figure_belongs_to_a_published_file() -> None:
    known = {f"{name}.{tag}" for name, one in hat.default_cfgs.items() for tag in one.cfgs}
    gans = {"hat_x4.real_gan", "hat_x4.real_gan_sharper"}
    assert known - {name for name in known if name.endswith("untrained")} == set(hat.PSNR) | gans


@pytest.mark.parametrize(
    "scale", [1, 2, 3, pytest.param(4, marks=pytest.mark.full), pytest.param(8, marks=pytest.mark.full)]
)
@pytest.mark.parametrize(
    "size", [pytest.param((1, 1), marks=pytest.mark.full), (3, 4), pytest.param((9, 14), marks=pytest.mark.full)]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_of_any_size_is_enlarged_by_the_scale(scale: int, size: tuple[int, int], channels: int) -> None:
    with torch.no_grad():
        restored = small(scale=scale, in_chans=channels, depths=(1,))(image(*size, channels))
    assert restored.shape == (2, channels, size[0] * scale, size[1] * scale)


@pytest.mark.parametrize("scale", [0, 5, 6])
def test_other_scales_are_refused(scale: int) -> None:
    with pytest.raises(ValueError, match=f"scale is {scale}; it must be 1, 3 or a power of two"):
        HAT(scale=scale)


def test_images_are_reflected_as_often_as_it_takes() -> None:
    x = image(3, 5)
    torch.testing.assert_close(reflect(x, 2, 4), torch.nn.functional.pad(x, (0, 4, 0, 2), mode="reflect"))
    assert reflect(x, 7, 0)[0, 0, :, 0].tolist() == x[0, 0, [0, 1, 2, 1, 0, 1, 2, 1, 0, 1], 0].tolist()
    assert torch.equal(reflect(x[:, :, :1, :1], 3, 3), x[:, :, :1, :1].expand(-1, -1, 4, 4))


def test_without_features_a_scale_of_one_gives_the_image_back() -> None:
    model = small(scale=1)
    torch.nn.init.zeros_(model.conv_last.weight)
    torch.nn.init.zeros_(model.conv_last.bias)
    torch.testing.assert_close(model(image()), image())


@pytest.mark.parametrize("scale", [1, 2])
def test_the_plain_formulation_gives_the_same(scale: int) -> None:
    model = small(scale=scale)
    torch.testing.assert_close(PlainHAT(model)(image(13, 18)), model(image(13, 18)), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "scale", [1, 2, pytest.param(3, marks=pytest.mark.full), pytest.param(4, marks=pytest.mark.full)]
)
def test_strips_and_chunks_change_nothing(scale: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = small(scale=scale), image(37, 22)
    whole = model(x)  # with gradients nothing is cut
    with torch.no_grad():
        torch.testing.assert_close(model(x), whole, rtol=0, atol=1e-5)
    monkeypatch.setattr("regard.vision.attention.windows.MAP", 1)
    monkeypatch.setattr(hat, "STRIP", 1)
    monkeypatch.setattr(hat_layers, "CACHE_NUMEL", 100)
    calls: list[int] = []
    model.conv_last.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        torch.testing.assert_close(model(x), whole, rtol=0, atol=1e-5)
    assert len(calls) > 1
    assert torch.equal(x, image(37, 22))


def test_every_parameter_learns_also_when_groups_are_computed_again() -> None:
    model = small(scale=2).train()
    model(image()).square().sum().backward()
    grads = [parameter.grad.clone() for parameter in model.parameters()]
    assert all(grad.any() for grad in grads)
    model.zero_grad()
    model.set_grad_checkpointing()
    torch.manual_seed(0)
    model.eval()(image()).square().sum().backward()
    assert all(parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("options", [{}, {"in_chans": 1, "scale": 1}, {"overlap_ratio": 1.0, "num_heads": [2, 3]}])
def test_what_weights_are_of_is_found_in_their_shapes(options: dict) -> None:
    model = HAT(**(SMALL | options))
    again = HAT(**deduce(model.state_dict()))
    again.load_state_dict(model.state_dict())
    x = image(5, 5, model.in_chans)
    assert torch.equal(again.eval()(x), model.eval()(x))


def test_four_times_starts_from_twice() -> None:
    twice, four = small(scale=2), small(scale=4)
    for parameter in four.parameters():
        torch.nn.init.zeros_(parameter)
    assert start_from(four, {"params_ema": twice.state_dict()}) == ["upsample.2.weight", "upsample.2.bias"]
    assert torch.equal(four.upsample[0].weight, twice.upsample[0].weight)
    assert start_from(small(scale=3), twice.state_dict()) == ["upsample.0.weight", "upsample.0.bias"]
    with pytest.raises(ValueError, match="not of this network at another scale"):
        start_from(small(scale=4, dim=24), twice.state_dict())


def test_files_of_the_authors_load_and_what_is_not_published_says_where_it_is(tmp_path: Path) -> None:
    model = timm.create_model("hat_tiny_x2", **SMALL).eval()
    tables = {"relative_position_index_SA": torch.zeros(4, 4, dtype=torch.long)}
    torch.save({"params": {}, "params_ema": tables | model.state_dict()}, tmp_path / "file.pth")
    again = create_model("hat_tiny_x2", weights=tmp_path / "file.pth", **SMALL).eval()
    assert torch.equal(again(image()), model(image()))
    with pytest.raises(ValueError, match=r"bring HAT-S_SRx4\.pth from https://drive.*as weights=FILE"):
        create_model("hat_s_x4", pretrained=True)
    with pytest.raises(ValueError, match="no pyramid of features"):
        create_model("hat_s_x4", features_only=True)


def test_half_precision_stays_near_single() -> None:
    model = small(scale=2)
    with torch.no_grad():
        exact, half = model(image()), copy.deepcopy(model).bfloat16()(image().bfloat16())
    assert (half.float() - exact).std() < 0.03 * exact.std()


def test_an_export_gives_the_same() -> None:
    model = small(scale=2, depths=(1,))
    exported = torch.export.export(model, (image(8, 12),)).module()
    torch.testing.assert_close(exported(image(8, 12)), model(image(8, 12)), rtol=0, atol=1e-5)
