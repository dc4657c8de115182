import torch

from regard.vision import create_model


def test_a_gate_follows_the_pooling() -> None:
    torch.manual_seed(0)
    mixer = create_model("poolformerv2_s12", attention="ela").stages[0].blocks[0].token_mixer
    x = torch.randn(1, 64, 7, 5)
    pooled = torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False) - x
    own = mixer.attention(pooled.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(mixer(x), own)


def test_a_mixer_is_given_memory_it_need_not_copy() -> None:
    model = create_model("poolformerv2_s12", attention="van").to(memory_format=torch.channels_last)
    seen = []
    for stage in model.stages:
        for block in stage.blocks:
            attention = block.token_mixer.attention
            attention.register_forward_pre_hook(lambda _, given: seen.append(given[0].is_contiguous()))
    model(torch.randn(1, 3, 64, 96).to(memory_format=torch.channels_last))
    assert len(seen) == 12
    assert all(seen)
