import timm
import torch

from regard.vision import create_model

TINY = {"depths": (1, 1, 1, 1), "dims": (16, 24, 32, 40)}


def test_the_convolution_of_the_host_is_rebuilt_as_it_was() -> None:
    host = timm.create_model("inception_next_atto", **TINY)
    model = create_model("inception_next_atto", attention="ela", attention_stages=[1, 2], **TINY)
    keys = model.load_state_dict(host.state_dict(), strict=False)
    assert not keys.unexpected_keys
    assert all(key.startswith(("stages.1.", "stages.2.")) for key in keys.missing_keys)
    for ours, theirs in zip(model.modules(), host.modules(), strict=False):
        if hasattr(theirs, "split_indexes") and hasattr(ours, "split_indexes"):
            assert ours.split_indexes == theirs.split_indexes


def test_a_gate_follows_the_convolution() -> None:
    torch.manual_seed(0)
    host = timm.create_model("inception_next_atto", **TINY)
    model = create_model("inception_next_atto", attention="ela", **TINY)
    model.load_state_dict(host.state_dict(), strict=False)
    x = torch.randn(1, 16, 7, 5)
    ours, theirs = model.stages[0].blocks[0].token_mixer, host.stages[0].blocks[0].token_mixer
    torch.testing.assert_close(ours(x), ours.gate(theirs(x)))
