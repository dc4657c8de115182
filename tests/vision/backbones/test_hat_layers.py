import copy

import pytest
import torch
from torch import Tensor, nn

from regard.vision.attention.hat import HybridAttention
from regard.vision.attention.hat_overlap import OverlappingCrossAttention
from regard.vision.backbones.hat_layers import (
    HybridAttentionLayer,
    OverlappingCrossAttentionLayer,
    ResidualHybridAttentionGroup,
    checkpoint_filter_fn,
)

SIZES = {"dim": 12, "num_heads": 2, "window_size": 4}


def image(height: int = 9, width: int = 14) -> Tensor:
    return torch.randn(2, height, width, 12, generator=torch.Generator().manual_seed(0))


def group(**options: object) -> ResidualHybridAttentionGroup:
    torch.manual_seed(1)
    return ResidualHybridAttentionGroup(depth=3, squeeze_factor=4, **SIZES, **options).eval()


def test_a_hybrid_layer_is_the_block_and_an_mlp_in_shortcuts() -> None:
    torch.manual_seed(0)
    layer = HybridAttentionLayer(**SIZES, shift=1, conv_scale=0.5)
    block = HybridAttention(**SIZES, shift=1, conv_scale=0.5)
    block.load_state_dict({name: layer.state_dict()[name] for name in block.state_dict()})
    x = image()
    x = x + block(layer.norm1(x))
    torch.testing.assert_close(layer(image()), x + layer.mlp(layer.norm2(x)))


def test_an_overlapping_layer_is_the_block_and_an_mlp_in_shortcuts() -> None:
    torch.manual_seed(0)
    layer = OverlappingCrossAttentionLayer(**SIZES)
    block = OverlappingCrossAttention(**SIZES)
    block.load_state_dict({name: layer.state_dict()[name] for name in block.state_dict()})
    x = image()
    x = x + block(layer.norm1(x))
    torch.testing.assert_close(layer(image()), x + layer.mlp(layer.norm2(x)))


def test_every_second_layer_of_a_group_is_shifted() -> None:
    assert [layer.shift for layer in group().residual_group["blocks"]] == [0, 2, 0]
    assert [layer.shift for layer in group(shift=1).residual_group["blocks"]] == [0, 1, 0]


def test_a_group_adds_to_its_input() -> None:
    ours = group()
    nn.init.zeros_(ours.conv.weight)
    nn.init.zeros_(ours.conv.bias)
    assert torch.equal(ours(image()), image())
    assert isinstance(group(conv=False).conv, nn.Identity)


def test_names_are_those_of_the_authors() -> None:
    names = set(group().state_dict())
    assert "residual_group.blocks.2.attn.relative_position_bias_table" in names
    assert "residual_group.blocks.0.conv_block.cab.3.attention.1.weight" in names
    assert "residual_group.overlap_attn.relative_position_bias_table" in names
    assert {name.split(".")[0] for name in names} == {"residual_group", "conv"}


def test_files_of_the_authors_are_unwrapped_and_lose_their_index_tables() -> None:
    ours, fresh = group(), group()
    for parameter in fresh.parameters():
        nn.init.zeros_(parameter)
    tables = {"relative_position_index_SA": torch.zeros(16, 16, dtype=torch.long)}
    fresh.load_state_dict(checkpoint_filter_fn({"params_ema": tables | ours.state_dict(), "params": {}}, fresh))
    assert torch.equal(fresh(image()), ours(image()))


def test_every_parameter_learns() -> None:
    ours = group().train()
    ours(image()).square().sum().backward()
    assert all(parameter.grad.any() for parameter in ours.parameters())


def test_dropped_paths_leave_the_channels_alone() -> None:
    torch.manual_seed(0)
    layer = HybridAttentionLayer(**SIZES, drop_path_rate=0.999999)
    x = image()
    torch.testing.assert_close(layer.train()(x), x + 0.01 * layer.conv_block(layer.norm1(x)))
    assert not torch.allclose(layer.eval()(x), layer.train()(x))


def test_half_precision_stays_near_single() -> None:
    ours = group()
    with torch.no_grad():
        half, exact = copy.deepcopy(ours).bfloat16()(image().bfloat16()), ours(image())
    assert (half.float() - exact).std() < 0.02 * exact.std()


def test_numbers_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="2 drop_path_rates are given for 3 layers"):
        group(drop_path_rates=[0.0, 0.1])
    with pytest.raises(ValueError, match="shift 4 is not from 0 to window_size - 1 = 3"):
        HybridAttentionLayer(**SIZES, shift=4)
