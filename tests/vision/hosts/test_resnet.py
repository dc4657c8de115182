import pytest
import timm
import torch
from timm.models.resnet import Bottleneck

from regard.vision import create_model
from regard.vision.hosts.resnet import AttentionBasicBlock, AttentionBottleneck


def test_a_gate_joins_a_bottleneck_after_its_second_activation() -> None:
    torch.manual_seed(0)
    plain = Bottleneck(64, 16).eval()
    block = AttentionBottleneck(64, 16, attention="ela").eval()
    block.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(2, 64, 7, 5)
    u = block.bn2(block.conv2(block.act1(block.bn1(block.conv1(x))))).relu()
    gated = u + block.act2[1].attention(u.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(block(x), (block.bn3(block.conv3(gated)) + x).relu())


def test_a_gate_joins_a_basic_block_before_the_sum() -> None:
    torch.manual_seed(0)
    block = AttentionBasicBlock(64, 64, attention="ela").eval()
    x = torch.randn(2, 64, 7, 5)
    u = block.bn2(block.conv2(block.act1(block.bn1(block.conv1(x)))))
    gated = u + block.se.attention(u.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(block(x), (gated + x).relu())


@pytest.mark.parametrize(("height", "width"), [(7, 5), (8, 6)])
def test_a_mixer_takes_the_stride_of_the_convolution(height: int, width: int) -> None:
    block = AttentionBottleneck(64, 16, stride=2, attention="van").eval()
    host = Bottleneck(64, 16, stride=2)
    u = torch.randn(1, 16, height, width)
    assert block.conv2(u).shape == host.conv2(u).shape


def test_a_hosts_own_channel_attention_stays() -> None:
    model = create_model("seresnet18", attention="van", layers=(1, 1, 1, 1))
    assert isinstance(model.layer1[0].se, timm.layers.SEModule)
    with pytest.raises(ValueError, match="SEModule where 'ela' would go"):
        create_model("seresnet18", attention="ela", layers=(1, 1, 1, 1))


def test_other_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"width.*block_reduce_first"):
        create_model("test_resnet", attention="van", block_reduce_first=2)
    with pytest.raises(ValueError, match=r"AttentionBasicBlock.*resnet50"):
        create_model("resnet18", attention="van", block=AttentionBasicBlock, block_args={"attention": "van"})


@pytest.mark.parametrize("stride", [8, 16])
def test_a_smaller_output_stride_works(stride: int) -> None:
    model = create_model("test_resnet", attention="van", output_stride=stride)
    assert model.forward_features(torch.randn(1, 3, 64, 96)).shape[-2:] == (64 // stride, 96 // stride)
