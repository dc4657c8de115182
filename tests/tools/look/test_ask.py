"""`regard ask` and `regard sinks`: answers before and after, photos the right way round, and clear mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import lvlm_folder
import numpy as np
import pytest
from jobs import run
from PIL import Image
from transformers import LlamaConfig, LlamaForCausalLM

from regard.tools.look.attention_maps import Row, changed_words, draw_attention, tile, words_seen

DOG = "is there a dog in the image ?"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lvlm_folder.save(tmp_path_factory.mktemp("lvlm"))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    return tmp_path / "image.png"


def test_answers_stand_side_by_side_with_what_each_intervention_did(
    model: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["ask", image, DOG, "--model", model, "--out", tmp_path / "out", "--max_new_tokens", "5"]
    assert run(*words, "--fix", "vhr:alpha=4,layers=0,-2:,pai:layers=1:", "--fix=pai:alpha=0.5,gamma=1") == 0
    out = capsys.readouterr().out.splitlines()
    names = ["baseline", 'vhr(alpha=4.0, layers="0,-2:"), pai(layers="1:")', "pai(alpha=0.5, gamma=1.0)"]
    assert [line.startswith(f"{name}: ") for line, name in zip(out[:3], names, strict=True)] == [True] * 3
    assert [line.split(":")[0].strip() for line in out[3:]] == ["vhr", "pai", "pai"]
    report = json.loads((tmp_path / "out" / "answers.json").read_text())
    assert [answer["fix"] for answer in report["answers"]] == [None, *names[1:]]
    assert len({answer["text"] for answer in report["answers"]}) == 3
    assert all(one["active"] for answer in report["answers"] for one in answer["activity"])
    with Image.open(tmp_path / "out" / "attention.png") as photo:
        assert photo.width > 600


def test_json_is_the_whole_output(model: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ask", image, DOG, "--model", model, "--out", tmp_path / "one.png", "--max_new_tokens", "2"]
    assert run(*words, "--json", "true") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["plot"] == str(tmp_path / "one.png")
    assert (tmp_path / "one.png").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image.png", "one.png"]
    assert report["answers"][0]["complete"] is False


def test_an_intervention_that_did_nothing_is_reported_and_makes_the_exit_code_one(
    model: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["ask", image, DOG, "--model", model, "--out", tmp_path, "--max_new_tokens", "3"]
    assert run(*words, "--fix", "var:dimensions=[3],threshold=7.9") == 1
    out = capsys.readouterr().out
    assert "var DID NOTHING here; the answer equals the baseline's" in out
    assert "var: inactive" in out


def test_beams_answer_without_a_plot(
    model: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["ask", image, DOG, "--model", model, "--out", tmp_path / "out", "--max_new_tokens", "3", "--beams", "2"]
    assert run(*words) == 0
    assert "No plot: the attention of 2 beams" in capsys.readouterr().err
    assert not (tmp_path / "out" / "attention.png").exists()


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--fix", "vrh"], "did you mean 'vhr'?"),
        (["--fix", "vhr:alpah=2"], "did you mean 'alpha'?"),
        (["--fix", "vhr:layers=30"], "layer 30 of '30' does not exist; the model has 4 layers"),
        (["--fix", "var"], "regard sinks --model M IMAGE"),
        (["--model", "nowhere"], "there is no folder nowhere"),
        (["--fx", "vhr"], "did you mean '--fix'?"),
        (["--max_new_tokens", "0"], "--max_new_tokens is 0; give 1 or more"),
        (["--dtype", "float61"], "float16"),
    ],
)
def test_a_mistake_is_named_without_a_traceback(
    words: list[str], hint: str, model: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("ask", image, DOG, "--model", model, "--out", tmp_path / "out", *words) == 2
    error = capsys.readouterr().err
    assert hint in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_a_wrong_image_question_or_model_is_named(
    model: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "words")
    (tmp_path / "bad.png").write_bytes(b"no image")
    for words, hint in (
        (["no.png", DOG, "--model", model], "there is no file no.png"),
        ([tmp_path / "bad.png", DOG, "--model", model], "bad.png: it is not an image that Pillow can read"),
        ([image, " ", "--model", model], "a question is empty"),
        ([image, "red <image> <image>", "--model", model], "needs 2 images"),
        ([image, DOG, "--model", tmp_path / "words"], "does not accept images"),
        ([image], "question is missing"),
    ):
        assert run("ask", *words) == 2
        assert hint in capsys.readouterr().err


def test_words_are_made_of_tokens_and_marks_have_no_say() -> None:
    seen = np.arange(5.0)[:, None, None] * np.ones((5, 2, 3))
    words, shown = words_seen(["a", " tra", "ffic", " light", "."], seen)
    assert words == ["a", "traffic", "light."]
    assert shown[:, 0, 0].tolist() == [0.0, 1.5, 3.0]
    assert words_seen(["红", "灯"], seen[:2])[0] == ["红", "灯"]
    assert words_seen(["", " "], seen[:2])[0] == []
    assert changed_words(["a", "red", "dog", "."], ["a", "dog", ",", "blue", "."]) == [False, True, False, False]


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 5), (3, 1), (2, 4)])
def test_a_bright_spot_of_attention_lands_where_its_patch_is(row: int, column: int) -> None:
    weights = np.zeros((4, 6))
    weights[row, column] = 0.3
    pixels = tile(Image.new("RGB", (120, 80), "grey"), weights, 0.3)
    height, width = pixels.shape[:2]
    assert abs(height / width - 80 / 120) < 0.02
    brightest = np.unravel_index((pixels[..., 0] - pixels[..., 2]).argmax(), (height, width))
    assert int(brightest[0] * 4 / height) == row
    assert int(brightest[1] * 6 / width) == column


def test_in_the_whole_image_a_spot_is_in_its_tile(tmp_path: Path) -> None:
    seen = np.zeros((2, 4, 4))
    seen[1, 3, 0] = 0.5  # of the second word, in the lower left
    image = Image.new("RGB", (64, 64), (90, 90, 90))
    draw_attention(image, [Row("baseline", ["red", "dog"], seen)], "what is this?", tmp_path / "photo.png")
    with Image.open(tmp_path / "photo.png") as photo:
        pixels = np.asarray(photo.convert("RGB"), dtype=int)
    tiles = (abs(pixels - 90).max(axis=2) < 60) | (pixels[..., 0] - pixels[..., 2] > 60)  # grey or hot, not white
    columns = np.flatnonzero(tiles[: len(pixels) // 2].sum(axis=0) > 60)
    starts = columns[np.insert(np.diff(columns) > 1, 0, True)]
    hot = np.argwhere((pixels[..., 0] - pixels[..., 2] > 60)[: int(0.75 * len(pixels))])
    assert len(starts) == 3  # the image itself and two words
    assert starts[2] <= hot[:, 1].min()
    assert hot[:, 1].mean() < starts[2] + (starts[1] - starts[0]) / 2
    rows = np.flatnonzero(tiles[:, starts[2] + 2 : starts[2] + 20].all(axis=1))
    assert hot[:, 0].mean() > rows.mean()


def test_sinks_prints_the_dimensions_and_how_var_takes_them(
    model: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("sinks", image, image, "--model", model, "--threshold", "2", "--json", "true") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["dimensions"]
    words = ["ask", image, DOG, "--model", model, "--out", tmp_path / "out", "--max_new_tokens", "2"]
    assert run(*words, "--fix", found["fix"]) in (0, 1)
    assert run("sinks", image, "--model", model, "--threshold", "7.9") == 2
    assert "The model has no such sinks, or a smaller threshold finds them" in capsys.readouterr().err
    assert run("sinks", "--model", model) == 2
    assert "images" in capsys.readouterr().err
