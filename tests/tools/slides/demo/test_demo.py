"""The embedded encoder and heads, and the commands that make and measure them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from regard.datasets.slides.feature_file import read_features
from regard.datasets.slides.textures import EMBEDDED_SLIDE
from regard.tools.slides.demo import encoder as demo_encoder
from regard.tools.slides.demo import measure as measure_demo
from regard.tools.slides.demo import train as train_demo
from regard.tools.slides.demo.cohort import encode
from regard.tools.slides.ensemble import Ensemble, find_heads
from regard.vision.encoders import ENCODERS, build_encoder, encoder_fingerprint


def test_the_embedded_heads_find_the_planted_lesion_and_do_not_agree_on_the_real_slide(tmp_path: Path) -> None:
    encoder = build_encoder("embedded")
    row = ENCODERS["embedded"]
    assert (encoder.name, encoder.dim, encoder.patch, encoder.mpp) == ("embedded", row.dim, row.patch, row.mpp)
    assert (encoder.size, encoder.interpolation, encoder.precision) == (row.size, row.interpolation, row.precision)
    heads = Ensemble(find_heads(["embedded"]), torch.device("cpu"))
    assert (heads.classes, heads.encoder, heads.dim_in) == (["normal", "lesion"], "embedded", encoder.dim)
    assert len(heads.heads) == 5
    rendered = EMBEDDED_SLIDE.with_name("rendered_lesion.svs")
    files = encode([rendered, EMBEDDED_SLIDE], encoder, tmp_path)
    votes = [heads.predict(torch.as_tensor(read_features(file)[0])) for file in files]
    assert votes[0].probabilities[1] > 0.8
    assert votes[1].probabilities[1] < votes[0].probabilities[1] - 0.3
    assert votes[1].spread[1] > 0.1
    _, grid, attributes = read_features(files[0])
    assert attributes["encoder"] == "embedded"
    mask = np.asarray(Image.open(EMBEDDED_SLIDE.with_name("rendered_lesion_mask.png")))
    auc = measure_demo.pixel_auc(votes[0].attention.double().numpy(), grid.coordinates, grid.side, mask)
    assert auc > 0.8


def test_weights_of_the_embedded_encoder_cannot_be_others() -> None:
    with pytest.raises(ValueError, match="embedded has its own weights"):
        build_encoder("embedded", weights="file.safetensors")


def test_views_are_turned_and_stained_and_contrast_knows_pairs() -> None:
    torch.manual_seed(0)
    patches = torch.rand(6, 3, 128, 128)
    one, other = demo_encoder.views(patches), demo_encoder.views(patches)
    assert one.shape == (6, 3, 80, 80)
    assert one.isfinite().all()
    assert not torch.equal(one, other)
    vectors = torch.eye(6)
    alike = demo_encoder.contrast(torch.cat([vectors, vectors]))
    strangers = demo_encoder.contrast(torch.cat([vectors, vectors.roll(1, dims=0)]))
    assert alike < 0.1
    assert strangers > 4


def test_an_encoder_is_trained_saved_and_read_again(tmp_path: Path) -> None:
    torch.manual_seed(0)
    patches = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    model = demo_encoder.train_encoder(patches, steps=1, batch=4)
    train_demo.save_encoder(model, tmp_path / "encoder")
    encoder = build_encoder(str(tmp_path / "encoder"))
    assert (encoder.name, encoder.size, encoder.patch) == ("embedded", 128, 128)
    assert encoder(patches).shape == (4, 160)
    torch.testing.assert_close(encoder(patches), model(encoder.prepare(patches)), atol=0.01, rtol=0.01)
    assert encoder_fingerprint(encoder) != encoder_fingerprint(build_encoder("embedded"))


def test_pixels_are_judged_where_patches_lie_on_tissue() -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[:4] = 128
    mask[:4, :4] = 255
    corners = np.array([[0, 0], [32, 0]])
    assert measure_demo.pixel_auc(np.array([0.9, 0.1]), corners, 32, mask) == 1
    assert measure_demo.pixel_auc(np.array([0.1, 0.9]), corners, 32, mask) == 0
    assert measure_demo.pixel_auc(np.array([0.5, 0.5]), corners, 32, mask) == 0.5


def test_an_interval_holds_the_mean() -> None:
    values = np.random.default_rng(1).normal(size=50)
    low, high = measure_demo.interval_of(lambda indices: float(values[indices].mean()), 50)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 50**0.5, rel=0.15)


def test_what_was_measured_is_written_down() -> None:
    text = (EMBEDDED_SLIDE.parents[3] / "heads" / "embedded" / "README.txt").read_text()
    assert "not a diagnosis" in text
    config = json.loads((EMBEDDED_SLIDE.parents[3] / "vision" / "encoders" / "embedded" / "config.json").read_text())
    assert config["encoder"] == {"name": "embedded", "patch": 128, "mpp": 0.5}
