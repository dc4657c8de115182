import pytest
import timm
import torch

from regard.vision import create_model
from regard.vision.hosts.mobilenet import MOBILENETV2


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "mobilenetv2_110d" else pytest.mark.full) for name in MOBILENETV2]
)
def test_but_for_the_block_it_is_timms_mobilenetv2(name: str) -> None:
    host = timm.create_model(name, device="meta")
    model = create_model(name, attention="ela", device="meta")
    shapes = {key: tensor.shape for key, tensor in model.state_dict().items() if ".attention." not in key}
    assert shapes == {key: tensor.shape for key, tensor in host.state_dict().items()}
    assert str(model.conv_stem) == str(host.conv_stem)
    assert type(model.blocks[1][0].bn1.act) is type(host.blocks[1][0].bn1.act)
    assert model.feature_info == host.feature_info


def test_every_expanding_block_has_one_and_the_first_has_none() -> None:
    model = create_model("mobilenetv2_050", attention="ela")
    assert isinstance(model.blocks[0][0].se, torch.nn.Identity)
    assert all(hasattr(block.se, "attention") for stage in model.blocks[1:] for block in stage)


def test_a_gate_weighs_and_a_mixer_adds() -> None:
    u = torch.randn(1, 48, 7, 5)
    gate = create_model("mobilenetv2_050", attention="ela").blocks[1][0].se
    mixer = create_model("mobilenetv2_050", attention="van").blocks[1][0].se
    for slot, shortcut in ((gate, 0), (mixer, u)):
        own = slot.attention(u.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        torch.testing.assert_close(slot(u), shortcut + own)


def test_the_first_stage_has_no_place() -> None:
    with pytest.raises(ValueError, match="one or more of 1, 2, 3, 4, 5, 6"):
        create_model("mobilenetv2_050", attention="ela", attention_stages=[0])
