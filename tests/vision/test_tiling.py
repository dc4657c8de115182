import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from regard.vision import tiling
from regard.vision.backbones.hat import HAT
from regard.vision.tiling import TileCost, cut_evenly, fade, largest_tile, restore_strips, tile_cost


class Local(nn.Module):
    """A restorer that reads `reach` pixels around, for which tiles can be exact."""

    def __init__(self, reach: int = 1, scale: int = 2, channels: int = 3, window: int = 4) -> None:
        super().__init__()
        self.scale, self.window_size, self.in_chans = scale, window, channels
        torch.manual_seed(0)
        self.conv = nn.Conv2d(channels, channels, 2 * reach + 1, padding=reach)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).repeat_interleave(self.scale, 2).repeat_interleave(self.scale, 3)


def pixels(height: int = 37, width: int = 50, channels: int = 3, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (height, width, channels), dtype)


def whole(model: nn.Module, image: np.ndarray) -> Tensor:
    with torch.no_grad():
        x = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None] / np.iinfo(image.dtype).max
        return model(x)[0]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("tile", "overlap"), [(16, 8), (20, 4), (64, 32), (24, 12)])
def test_tiles_of_a_local_network_give_the_whole_image(dtype: type, tile: int, overlap: int) -> None:
    model, image = Local(), pixels(dtype=dtype)
    strips = list(restore_strips(model, image, tile=tile, overlap=overlap))
    torch.testing.assert_close(torch.cat(strips, dim=1), whole(model, image), rtol=0, atol=1e-6)


def test_tiles_fade_without_a_seam() -> None:
    """The mean over a tile differs from tile to tile; what comes out must still change slowly."""
    model = Local(reach=1)
    model.forward = lambda x: (x.mean() + 0 * x).repeat_interleave(2, 2).repeat_interleave(2, 3)
    ramp = np.linspace(0, 255, 96).astype(np.uint8)
    image = np.repeat(np.repeat(ramp[None, :, None], 40, 0), 3, 2)
    strips = restore_strips(model, image, tile=32, overlap=16)
    restored = torch.cat(list(strips), dim=1)
    assert restored.diff(dim=2).abs().max() < 0.05
    hard = torch.cat(list(restore_strips(model, image, tile=32, overlap=0)), dim=1)
    assert hard.diff(dim=2).abs().max() > 0.2


@pytest.mark.parametrize("length", [1, 31, 32, 33, 100, 257])
@pytest.mark.parametrize(("tile", "overlap"), [(32, 0), (32, 16), (64, 16), (64, 24)])
def test_tiles_cover_an_axis_on_the_grid_of_windows_and_at_most_two_meet(length: int, tile: int, overlap: int) -> None:
    parts = cut_evenly(length, tile, overlap, 8)
    assert parts[0].start == 0
    assert parts[-1].stop == length
    assert all(part.start % 8 == 0 and part.stop - part.start <= tile for part in parts)
    assert all(a.stop - b.start == overlap for a, b in itertools.pairwise(parts))
    assert all(a.stop <= b.start for a, b in zip(parts, parts[2:], strict=False))
    assert len(parts) == 1 or parts[-1].stop - parts[-1].start > overlap


def test_fading_starts_and_ends_with_one_tile_alone() -> None:
    ramp = fade(64)
    assert ramp[:16].max() == 0
    assert ramp[-16:].min() == 1
    torch.testing.assert_close(ramp + ramp.flip(0), torch.ones(64))


def test_a_network_of_one_channel_takes_colours_one_by_one_and_one_of_three_takes_grey() -> None:
    image = pixels()
    grey = Local(channels=1)
    restored = torch.cat(list(restore_strips(grey, image, tile=64, overlap=8)), dim=1)
    torch.testing.assert_close(restored[1:2], whole(grey, image[..., 1:2]))
    colours = Local()
    restored = torch.cat(list(restore_strips(colours, image[..., :1], tile=64, overlap=8)), dim=1)
    expected = whole(colours, image[..., [0, 0, 0]]).mean(dim=0, keepdim=True)
    torch.testing.assert_close(restored, expected)


def test_tiles_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="an overlap is at most half a tile"):
        next(restore_strips(Local(), pixels(), tile=16, overlap=12))
    with pytest.raises(ValueError, match="4 channels, the network expects 3"):
        next(restore_strips(Local(), pixels(channels=4), tile=16, overlap=8))


def test_a_wide_overlap_brings_the_real_network_near_the_whole_image() -> None:
    torch.manual_seed(0)
    model = HAT(scale=2, dim=12, depths=(2,), num_heads=2, window_size=4, squeeze_factor=6).eval()
    image = pixels(64, 48)
    errors = []
    for overlap in (0, 8, 16):
        restored = torch.cat(list(restore_strips(model, image, tile=32, overlap=overlap)), dim=1)
        errors.append((restored - whole(model, image)).abs().max().item())
    assert errors[2] < errors[1] < errors[0]


def test_channel_attention_has_the_same_means_in_all_tiles() -> None:
    torch.manual_seed(0)
    sizes = {"dim": 12, "depths": (1,), "num_heads": 2, "window_size": 4, "squeeze_factor": 6}
    model = HAT(scale=2, conv_scale=1, **sizes).eval()
    image = np.sort(pixels(64, 64), axis=1)  # dark at the left, bright at the right
    apart = []
    for share in (False, True):
        strips = restore_strips(model, image, tile=32, overlap=16, share_means=share)
        apart.append((torch.cat(list(strips), dim=1) - whole(model, image)).abs().mean().item())
    assert apart[1] < 0.5 * apart[0]
    assert not any(module._forward_hooks for module in model.modules())


def test_a_tile_is_as_large_as_the_memory_allows() -> None:
    model, sizes = Local(), {"channels": 3, "overlap": 8}
    cost = TileCost(1e6, 1000.0)
    chosen = [largest_tile(model, cost, 500, 700, limit=limit, **sizes) for limit in (1e5, 3e6, 1e8, 1e12)]
    assert chosen[0] == 0
    assert 16 <= chosen[1] < chosen[2] <= 700 <= chosen[3]
    assert largest_tile(model, cost, 5000, 7000, limit=1e12, **sizes) == tiling.MAX_SIDE


def test_the_cost_of_a_tile_grows_with_its_pixels() -> None:
    sizes = iter([1000, 2000])
    cost = tile_cost(Local(), lambda once: (once(), next(sizes))[1])
    assert cost.bytes_for(16**2) == pytest.approx(1000)
    assert cost.bytes_for(24**2) == pytest.approx(2000)


def test_every_pixel_is_told_of_once() -> None:
    steps: list[int] = []
    for _ in restore_strips(Local(), np.zeros((50, 70, 3), np.uint8), tile=32, overlap=8, step=steps.append):
        pass
    assert sum(steps) == 50 * 70
