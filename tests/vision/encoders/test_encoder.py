import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import transforms

from regard.vision.encoders import PatchEncoder, encoder_fingerprint
from regard.vision.encoders.table import NORMALISATION

MEAN, STD = NORMALISATION["imagenet"]


class Tokens(nn.Module):
    """Three tokens: twos, fives for registers, and one for each quarter of the image."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        quarters = nn.functional.adaptive_avg_pool2d(images, 2).flatten(2).transpose(1, 2)
        first = torch.full_like(quarters[:, :1], 2)
        return torch.cat([first, torch.full_like(first, 5), quarters], dim=1)


def encoder(network: nn.Module | None = None, **options: object) -> PatchEncoder:
    named = {"name": "tiny", "dim": 3, "size": 32, "mean": MEAN, "std": STD} | options
    return PatchEncoder(network or nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), **named)


def patches(side: int, count: int = 2) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("side", "resize", "size"), [(64, 32, 32), (50, 32, 32), (24, 32, 32), (64, 40, 32), (32, 32, 32)]
)
def test_the_network_gets_what_torchvision_makes_of_a_image(
    interpolation: str, side: int, resize: int, size: int
) -> None:
    pixels = patches(side)
    mode = getattr(transforms.InterpolationMode, interpolation.upper())
    reference = transforms.Compose(
        [
            transforms.Resize(resize, interpolation=mode),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    expected = torch.stack([reference(Image.fromarray(one.numpy())) for one in pixels])
    found = encoder(size=size, resize=resize, interpolation=interpolation).prepare(pixels)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected, atol=1.01 / 255 / min(STD), rtol=0)  # one of 255 where halves round
    assert (found - expected).abs().mean() < 0.1 / 255


@pytest.mark.parametrize("pooling", ["class", "mean", "class+mean"])
def test_registers_never_count(pooling: str) -> None:
    pixels = patches(32)
    tokens = Tokens()
    mean = encoder().prepare(pixels).mean(dim=(2, 3))
    expected = {
        "class": torch.full((2, 3), 2.0),
        "mean": mean,
        "class+mean": torch.cat([mean * 0 + 2, mean], 1),
    }
    found = encoder(tokens, pooling=pooling, prefix=2)(pixels)
    torch.testing.assert_close(found, expected[pooling])


def test_a_map_is_averaged() -> None:
    pixels = patches(32)
    torch.testing.assert_close(encoder(nn.Identity())(pixels), encoder()(pixels))


def test_features_are_of_length_one_when_asked() -> None:
    torch.testing.assert_close(encoder(normalised=True)(patches(32)).norm(dim=1), torch.ones(2))


def test_no_patches_give_no_features() -> None:
    assert encoder()(patches(50, count=0)).shape == (0, 3)


def test_bfloat16_is_computed_where_it_was_asked_for_and_features_stay_float32() -> None:
    torch.manual_seed(1)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5))
    pixels = patches(32)
    exact = encoder(network, dim=5)(pixels)
    on_cuda_only = encoder(network, dim=5, precision="bfloat16")(pixels)
    everywhere = encoder(network, dim=5, precision="bfloat16", everywhere=True)(pixels)
    assert torch.equal(on_cuda_only, exact)
    assert everywhere.dtype == torch.float32
    assert 0 < (everywhere - exact).abs().max() < 0.05


def test_the_fingerprint_tells_weights_and_transforms_apart_and_nothing_else() -> None:
    torch.manual_seed(1)
    network = nn.Linear(2, 2)
    first = encoder_fingerprint(encoder(network))
    assert first == encoder_fingerprint(encoder(network, precision="float16"))
    assert first.startswith("tiny@")
    assert len(encoder_fingerprint(encoder(network), "long")) == len("tiny@") + 64
    assert first != encoder_fingerprint(encoder(network, interpolation="bicubic"))
    with torch.no_grad():
        network.weight[0, 0] += 1e-6
    assert first != encoder_fingerprint(encoder(network))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "cls"}, "no pooling is called 'cls'; known: network, class, class[+]mean, mean"),
        ({"interpolation": "lanczos"}, "no interpolation is called 'lanczos'"),
        ({"precision": "fp16"}, "no precision is called 'fp16'; known: float32, bfloat16, float16"),
        ({"resize": 16}, "resized to 16 px hold no centre of 32 px"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encoder(**options)
