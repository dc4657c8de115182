"""The Lightning module of restoration, where it starts from, and the embedded restorer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from regard import create_model
from regard.vision.image_quality import measure
from regard.vision.restoration import MEASURES, ImageRestorer
from regard.vision.restoration_start import start_as_interpolation
from regard.vision.restorers import DEFAULT, embedded_restorers, find_restorer, load_restorer

SMALL = {"dim": 12, "depths": (1,), "num_heads": 2}


class Doubled(nn.Module):
    """Repeats pixels, with one weight to learn."""

    scale = 2

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.5))

    def forward(self, low: torch.Tensor) -> torch.Tensor:
        return self.gain * low.repeat_interleave(2, 2).repeat_interleave(2, 3)


def pairs(count: int = 4, side: int = 10) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(count, 1, 3, side, side, generator=generator)
    return [(one, one.repeat_interleave(2, 2).repeat_interleave(2, 3)) for one in low]


def fit(restorer: ImageRestorer, epochs: int = 10) -> list[float]:
    """Rates of all updates."""
    rates: list[float] = []
    step = restorer.lr_scheduler_step

    def keep(scheduler: object, metric: object) -> None:
        rates.append(restorer.trainer.optimizers[0].param_groups[0]["lr"])
        step(scheduler, metric)

    restorer.lr_scheduler_step = keep  # type: ignore[method-assign]
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = torch.utils.data.DataLoader(pairs(), batch_size=None)  # type: ignore[arg-type]
    trainer.fit(restorer, loader, loader)
    trainer.test(restorer, loader, verbose=False)
    return rates


@pytest.mark.filterwarnings("ignore:.*(does not have many workers|LeafSpec)")
def test_it_learns_and_halves_its_rate_where_the_authors_do() -> None:
    restorer = ImageRestorer(Doubled(), lr=0.05)
    rates = fit(restorer)
    assert restorer.model.gain.item() == pytest.approx(1, abs=0.05)
    halvings = [rates[i] / rates[i - 1] for i in range(1, len(rates)) if rates[i] != rates[i - 1]]
    assert halvings[:2] == pytest.approx([0.5, 0.5])
    assert [i for i in range(1, 40) if rates[i] != rates[i - 1]][:2] == pytest.approx([20, 32], abs=1)
    assert [set(row) for row in restorer.rows] == [set(MEASURES)] * 4
    best = [measure(restorer(low), high, 2)["psnr_y"].item() for low, high in pairs()]
    assert [row["psnr_y"] for row in restorer.rows] == pytest.approx(best, abs=1e-3)


def test_losses_are_what_they_are_called() -> None:
    one, two = torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.25)
    assert ImageRestorer(Doubled()).loss(one, two).item() == 0.25
    smooth = ImageRestorer(Doubled(), loss="charbonnier").loss(one, two)
    assert smooth.item() == pytest.approx((0.25**2 + 1e-6) ** 0.5)


def test_wrong_options_are_named() -> None:
    with pytest.raises(ValueError, match="between 0 and 1 in ascending order"):
        ImageRestorer(Doubled(), halve_at=[0.9, 0.5])
    with pytest.raises(ValueError, match="needs a metric"):
        ImageRestorer(Doubled(), schedule="plateau")


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_a_network_that_starts_as_interpolation_is_near_it(scale: int) -> None:
    torch.manual_seed(0)
    ramp = torch.linspace(0, 1, 24)
    low = torch.stack([ramp.expand(24, 24), ramp.expand(24, 24).T, 1 - ramp.expand(24, 24)])[None]
    model = create_model(f"hat_tiny_x{scale}", **SMALL).eval()
    mode = {"mode": "bilinear", "align_corners": False}
    wanted = low if scale == 1 else torch.nn.functional.interpolate(low, scale_factor=scale, **mode)
    inside = (..., *[slice(2 * scale, -2 * scale)] * 2)
    with torch.no_grad():
        before = (model(low) - wanted)[inside].abs().mean()
        start_as_interpolation(model)
        after = (model(low) - wanted)[inside].abs().mean()
    assert after < 0.1
    assert after < before / 2


def test_interpolation_needs_a_network_that_can() -> None:
    with pytest.raises(ValueError, match="not for x3"):
        start_as_interpolation(create_model("hat_tiny_x3", **SMALL))
    with pytest.raises(ValueError, match="not for Doubled"):
        start_as_interpolation(Doubled())


def test_the_embedded_restorer_is_small_and_says_where_it_is_from() -> None:
    for folder in embedded_restorers().values():
        assert sum(file.stat().st_size for file in folder.iterdir()) < 3e6
        assert "regard train --config" in (folder / "README.txt").read_text()


def test_a_folder_without_a_restorer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither a bundled restorer \\(hat_photo_x2"):
        load_restorer(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "van_b0", "label_names": ["a"]}))
    assert find_restorer(str(tmp_path)) is None
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "hat_tiny_x2"}))
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_restorer(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    assert find_restorer(str(tmp_path)) is None
    assert find_restorer(DEFAULT) == embedded_restorers()[DEFAULT]
