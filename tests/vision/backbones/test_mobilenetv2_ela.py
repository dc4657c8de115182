import pytest
import timm
import torch
from torch import Tensor, nn

from regard.vision.attention.ela import EfficientLocalAttention
from regard.vision.backbones.mobilenetv2_ela import checkpoint_filter_fn


def small(**options: object) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("mobilenetv2_ela", **({"num_classes": 5, "width_mult": 0.25} | options)).eval()


def images(height: int = 65, width: int = 48) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def authors_names(model: nn.Module) -> dict[str, Tensor]:
    """The network's weights as the authors number them: by position in their nn.Sequential."""
    layers = [
        ("conv_stem", "features.0.0"),
        ("bn1", "features.0.1"),
        ("conv_head", "conv.0"),
        ("bn2", "conv.1"),
    ]
    layers.append(("classifier", "classifier.1"))
    number = 0
    for stage, blocks in enumerate(model.blocks):
        for index in range(len(blocks)):
            number += 1
            first = ["conv_dw:0", "bn1:1", "conv_pw:3", "bn2:4"]
            later = ["conv_pw:0", "bn1:1", "conv_dw:3", "bn2:4", "se.attention:6", "conv_pwl:7", "bn3:8"]
            for pair in later if stage else first:
                ours, theirs = pair.split(":")
                layers.append((f"blocks.{stage}.{index}.{ours}", f"features.{number}.conv.{theirs}"))
    return {
        name.replace(ours, theirs, 1): tensor
        for name, tensor in model.state_dict().items()
        for ours, theirs in layers
        if name.startswith(ours + ".")
    }


def test_the_size_is_the_published_one() -> None:
    with torch.device("meta"):
        model = timm.create_model("mobilenetv2_ela")
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(3.917, abs=6e-4)


def test_every_block_that_expands_has_one_gate() -> None:
    gates = [module for module in small().modules() if isinstance(module, EfficientLocalAttention)]
    assert len(gates) == 16
    assert all(gate.conv.kernel_size == (7,) and gate.conv.weight.shape[1] == 8 for gate in gates)


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_authors_file_loads(wrapped: bool) -> None:
    model = small()
    state = model.state_dict()
    theirs = authors_names(model)
    assert len(theirs) == len(state)
    found = checkpoint_filter_fn({"state_dict": theirs} if wrapped else theirs, model)
    assert found.keys() == state.keys()
    assert all(found[name] is tensor for name, tensor in theirs_by_name(found, state).items())


def theirs_by_name(found: dict[str, Tensor], state: dict[str, Tensor]) -> dict[str, Tensor]:
    for name, tensor in state.items():
        assert found[name].data_ptr() == tensor.data_ptr(), name
    return found


def test_a_file_of_ours_loads() -> None:
    model = small()
    assert checkpoint_filter_fn(model.state_dict(), model).keys() == model.state_dict().keys()


@pytest.mark.parametrize("width_mult", [0.1, 0.35, 1.4])
def test_other_widths_run(width_mult: float) -> None:
    assert small(width_mult=width_mult)(images()).shape == (2, 5)


def test_it_does_what_timm_users_expect() -> None:
    model = small()
    assert model.forward_features(images()).shape == (2, 1280, 3, 2)
    model.reset_classifier(3)
    assert model(images()).shape == (2, 3)
    maps = small(features_only=True)(images(64, 64))
    assert [found.shape[-1] for found in maps] == [32, 16, 8, 4, 2]


def test_gradients_reach_every_parameter() -> None:
    model = small().train()
    model(images()).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
