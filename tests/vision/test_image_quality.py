"""PSNR and SSIM agree with scikit-image and torchmetrics, and with what papers do around them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import peak_signal_noise_ratio as other_psnr
from torchmetrics.functional.image import structural_similarity_index_measure as other_ssim

from regard.vision.image_quality import luma, measure, psnr, ssim


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(2, 3, 30, 41, generator=generator, dtype=torch.float64)
    truth = torch.nn.functional.avg_pool2d(truth, 3, 1, 1)
    return (truth + 0.05 * torch.randn(truth.shape, generator=generator)).clamp(0, 1), truth


def test_psnr_is_that_of_both_libraries(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    image, truth = pair
    for index in range(2):
        expected = peak_signal_noise_ratio(truth[index].numpy(), image[index].numpy(), data_range=1.0)
        assert psnr(image, truth)[index].item() == pytest.approx(expected, abs=1e-10)
    both = other_psnr(image, truth, data_range=1.0, reduction="none", dim=(1, 2, 3))
    torch.testing.assert_close(psnr(image, truth), both)


def test_ssim_is_that_of_both_libraries(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    image, truth = pair
    for index in range(2):
        planes = []
        for one, two in zip(image[index].numpy(), truth[index].numpy(), strict=True):
            _, plane = structural_similarity(
                one,
                two,
                data_range=1.0,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
                win_size=11,
                full=True,
            )
            planes.append(plane[5:-5, 5:-5].mean())  # there the border counts, by reflection
        assert ssim(image, truth)[index].item() == pytest.approx(np.mean(planes), abs=1e-9)
    inner = other_ssim(image, truth, data_range=1.0, sigma=1.5, kernel_size=11, reduction="none")
    torch.testing.assert_close(ssim(image, truth), inner, atol=2e-2, rtol=0)  # torchmetrics pads, then cuts


def test_luma_is_that_of_matlab() -> None:
    # rgb2ycbcr of pure red, green, blue and black in 8 bits, before rounding
    colours = torch.eye(3).view(3, 3, 1, 1)
    assert (luma(colours) * 255).flatten().tolist() == pytest.approx([81.481, 144.553, 40.966], abs=1e-4)
    assert (luma(torch.zeros(1, 3, 1, 1)) * 255).item() == pytest.approx(16)
    grey = torch.rand(1, 1, 3, 3)
    assert torch.equal(luma(grey), grey)


def test_the_border_is_cut_and_values_are_rounded_to_8_bits(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    image, truth = pair
    degraded = image.clone()
    degraded[..., :2, :] = 0.0
    degraded[..., -2:] = 1.0
    for name, found in measure(degraded, truth, border=2).items():
        torch.testing.assert_close(found, measure(image, truth, border=2)[name])
    assert measure(degraded, truth)["psnr"].lt(measure(image, truth)["psnr"]).all()
    nearly = ((truth * 255).round() + 0.3) / 255
    assert measure(nearly, (truth * 255).round() / 255)["psnr"].tolist() == [100.0, 100.0]


def test_small_images_have_no_ssim_and_a_border_must_leave_something() -> None:
    assert measure(torch.rand(1, 3, 8, 20), torch.rand(1, 3, 8, 20))["ssim"].isnan().all()
    with pytest.raises(ValueError, match="leaves nothing of 8 x 8"):
        measure(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8), border=4)
    with pytest.raises(ValueError, match="11 x 11"):
        ssim(torch.rand(1, 1, 8, 20), torch.rand(1, 1, 8, 20))
