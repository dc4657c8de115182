"""`regard train lvlm-demo`, sized down, and the model that it once made for the package."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jobs import run, start
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoProcessor, LlavaForConditionalGeneration

from regard.datasets.scene_captions import CAPTION_PROMPTS
from regard.datasets.scene_words import WORDS, build_processor, word_ids
from regard.datasets.scenes import CLASSES, Scenes, draw_scene
from regard.mllm.session.sinks import sink_strength
from regard.tools.train.lvlm_demo.exam import caption_metrics, caption_scenes, sink_statistics, yes_no_metrics
from regard.tools.train.lvlm_demo.lessons import image_lesson, pad, patch_targets, pixels, text_lesson
from regard.tools.train.lvlm_demo.network import (
    SINK_DIMENSION,
    SINK_THRESHOLD,
    SINK_VALUE,
    build_scene_lvlm,
    guard_sink_dimension,
    plant_visual_sinks,
    project,
    see,
)
from regard.tools.train.lvlm_demo.training import STAGES, train_stages

EMBEDDED = Path(__file__).parents[2] / "mllm" / "embedded"
TINY = ["--steps_scale", "0.001", "--workers", "1", "--eval_scenes", "2", "--device", "cpu"]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("done")
    assert run("train", "lvlm-demo", *TINY, "--out", out) == 0
    return out


@pytest.fixture(scope="module")
def embedded() -> tuple[Any, Any]:
    """Model and processor as users load them."""
    model = LlavaForConditionalGeneration.from_pretrained(EMBEDDED, dtype=torch.float32, local_files_only=True)
    return model.eval(), AutoProcessor.from_pretrained(EMBEDDED, local_files_only=True)


def test_a_run_leaves_a_model_that_the_library_loads(done: Path) -> None:
    model = LlavaForConditionalGeneration.from_pretrained(done / "model")
    assert model.dtype == torch.float16
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert AutoProcessor.from_pretrained(done / "model").tokenizer.vocab_size == 64
    assert AutoConfig.from_pretrained(done / "model").regard == {
        "sink_dimensions": [SINK_DIMENSION],
        "sink_threshold": SINK_THRESHOLD,
    }
    figures = json.loads((done / "summary.json").read_text())
    assert set(figures["questions"]) == {"random", "popular", "adversarial"}
    assert 0 <= figures["captions"]["recall"] <= 100
    for stage in STAGES:
        assert (done / f"{stage.name}.csv").read_text().startswith("step,loss")


def test_only_its_own_stage_changes_a_part_of_the_model(done: Path) -> None:
    states = {stage.name: load_file(done / f"{stage.name}.safetensors") for stage in STAGES}

    def changed(before: str, after: str) -> set[str]:
        one, other = states[before], states[after]
        return {name.split(".")[1] for name in one if not torch.equal(one[name], other[name])}

    assert changed("vision", "language") == {"language_model"}
    assert changed("language", "projector") == {"multi_modal_projector"}
    assert changed("projector", "together") == {"language_model", "multi_modal_projector"}


def test_two_processes_learn_what_one_learns(done: Path, tmp_path: Path) -> None:
    out = tmp_path / "two of them"
    process = start(["train", "lvlm-demo", *TINY, "--workers", "2", "--out", out])
    stderr = process.communicate()[1]
    assert process.returncode == 0, stderr
    for stage in ("vision", "language"):  # later on rounding differences grow
        one, two = (load_file(folder / f"{stage}.safetensors") for folder in (done, out))
        apart = torch.cat([(two[name] - weight).abs().flatten() for name, weight in one.items()]) > 2e-4
        assert apart.float().mean() < 0.002  # where a gradient is next to nothing, rounding decides its sign
    assert not (out / "meeting").exists()


def test_a_killed_run_goes_on_after_the_last_finished_stage(done: Path, tmp_path: Path) -> None:
    process = start(["train", "lvlm-demo", *TINY, "--out", tmp_path])
    while not (tmp_path / "language.safetensors").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "summary.json").exists()
    kept = (tmp_path / "vision.safetensors").stat().st_mtime_ns
    process = start(["train", "lvlm-demo", *TINY, "--out", tmp_path])
    stderr = process.communicate()[1]
    assert process.returncode == 0, stderr
    assert "vision" not in stderr
    assert (tmp_path / "vision.safetensors").stat().st_mtime_ns == kept
    for file in ("together.safetensors", "model/model.safetensors", "summary.json"):
        assert (tmp_path / file).read_bytes() == (done / file).read_bytes()


def test_a_finished_run_is_only_told_again(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in done.glob("*.safetensors")}
    assert run("train", "lvlm-demo", *TINY, "--out", done) == 0
    assert "recall" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in done.glob("*.safetensors")} == before


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--workers", "0"], "workers is 0; give 1 to 32"),
        (["--workers", "33"], "workers is 33"),
        (["--steps_scale", "0"], "steps_scale is 0"),
        (["--seed", "-1"], "seed is -1"),
        (["--eval_scenes", "0"], "eval_scenes is 0"),
        (["--step_scale", "1"], "did you mean --steps_scale?"),
    ],
)
def test_a_wrong_setting_is_named(
    words: list[str], hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", "lvlm-demo", "--out", tmp_path / "out", *words) == 2
    assert hint in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_another_seed_does_not_go_on_in_the_same_folder(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "lvlm-demo", *TINY, "--seed", "1", "--out", done) == 2
    assert "holds a run with other settings (seed: 0 there, 1 here)" in capsys.readouterr().err


def test_a_stage_file_of_another_model_is_refused(done: Path, tmp_path: Path) -> None:
    save_file({"stranger": torch.zeros(1)}, tmp_path / "vision.safetensors")
    with pytest.raises(OSError, match="does not fit this model"):
        train_stages(0, tmp_path, 0, 0.004, 1, "cpu")
    whole = (done / "vision.safetensors").read_bytes()
    (tmp_path / "vision.safetensors").write_bytes(whole[:50_000])
    with pytest.raises(OSError, match="damaged or does not fit this model"):
        train_stages(0, tmp_path, 0, 0.004, 1, "cpu")


def rows(lesson: Callable[[np.random.Generator], Any], count: int) -> list[Any]:
    return [lesson(np.random.default_rng([9, number])) for number in range(count)]


def test_rows_show_a_image_or_not_as_often_as_they_should() -> None:
    assert not any(row.scene for row in rows(text_lesson, 50))
    seen = rows(image_lesson, 400)
    assert np.mean([row.scene is None for row in seen]) == pytest.approx(0.15, abs=0.05)
    for row in seen:
        assert row.tokens.count(WORDS["<image>"]) == (36 if row.scene else 0)


def test_only_answers_are_learnt_and_yes_and_no_count_more() -> None:
    lessons = rows(image_lesson, 20)
    tokens, weights = pad(lessons, answer_weight=2.0)
    for row, lesson in enumerate(lessons):
        size = len(lesson.tokens)
        assert tokens[row, :size].tolist() == lesson.tokens
        assert (tokens[row, size:] == WORDS["<pad>"]).all()
        assert (weights[row, size:] == 0).all()
        answering = False
        for index in range(size):
            token = lesson.tokens[index]
            expected = 0.0 if not answering else 2.0 if token in word_ids("yes no") else 1.0
            assert weights[row, index] == expected
            answering = (token == WORDS[":"] and lesson.tokens[index - 1] == WORDS["assistant"]) or (
                answering and token != WORDS["<eos>"]
            )


def test_the_training_sees_what_the_processor_gives() -> None:
    scenes = list(Scenes("dev", 2))
    photos = [scene.image() for scene in scenes]
    given = build_processor()(images=photos, text=["<image>"] * 2, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(pixels(scenes), given, atol=1e-5, rtol=0)


def test_nothing_but_the_projector_writes_to_the_sink_dimension() -> None:
    model = build_scene_lvlm()
    hidden = model.model.language_model
    ids = torch.tensor([word_ids("<bos> a dog next to a kite .")])
    states = hidden(input_ids=ids, output_hidden_states=True).hidden_states[:-1]
    for state in states:
        torch.testing.assert_close(state[0, :, SINK_DIMENSION], torch.tensor([SINK_VALUE] + [0.0] * 7))
        assert (sink_strength(state[0], [SINK_DIMENSION]) > SINK_THRESHOLD).tolist() == [True] + [False] * 7
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    hidden(input_ids=ids).last_hidden_state.square().sum().backward()
    guard_sink_dimension(model)
    optimizer.step()
    moved = hidden(input_ids=ids, output_hidden_states=True).hidden_states[:-1]
    assert not torch.equal(moved[2], states[2])
    for state in moved:
        torch.testing.assert_close(state[0, :, SINK_DIMENSION], torch.tensor([SINK_VALUE] + [0.0] * 7))


def test_planted_sinks_tell_background_from_things_as_far_as_the_tower_can() -> None:
    model = build_scene_lvlm()
    seen = torch.randn(8, 36, 128, generator=torch.Generator().manual_seed(0))
    background = seen[..., 3] > 0.3
    plant_visual_sinks(model, seen, background)
    with torch.no_grad():
        planted = project(model, seen)[..., SINK_DIMENSION]
    assert ((planted > SINK_VALUE / 2) == background).float().mean() > 0.85
    assert patch_targets(list(Scenes("dev", 3))).shape == (3, 36)
    assert see(model, pixels(list(Scenes("dev", 3)))).shape == (3, 36, 128)


def test_the_first_weights_depend_on_the_seed_and_leave_the_global_random_state_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    one, again, other = build_scene_lvlm(0), build_scene_lvlm(0), build_scene_lvlm(1)
    assert torch.rand(1) == expected
    weights = [model.model.language_model.layers[2].self_attn.q_proj.weight for model in (one, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_embedded_model_is_small_and_says_what_it_is() -> None:
    assert sum(path.stat().st_size for path in EMBEDDED.iterdir()) < 10_000_000
    readme = " ".join((EMBEDDED / "README.txt").read_text().split())
    assert "regard train lvlm-demo" in readme
    assert "no evidence about real LVLMs" in readme
    assert not [path for path in EMBEDDED.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".pkl")]


def test_the_embedded_model_sees_and_has_its_habit(embedded: tuple[Any, Any]) -> None:
    model, processor = embedded
    scenes = list(Scenes("natural", 48, seed=1))
    figures = caption_metrics(scenes, caption_scenes(model, processor, scenes))
    assert figures["recall"] >= 60
    assert 20 <= figures["chair_s"] <= 80
    assert 25 <= figures["words"] <= 40
    questions = yes_no_metrics(model, processor, scenes[:24])
    assert questions["random"]["accuracy"] > 75


def test_the_embedded_model_speaks_when_asked_as_the_library_asks(embedded: tuple[Any, Any]) -> None:
    model, processor = embedded
    scene = draw_scene(np.random.default_rng(5))
    turn = [
        {
            "role": "user",
            "content": [{"type": "image"}, {"type": "text", "text": "Please describe this image in detail."}],
        }
    ]
    prompt = processor.apply_chat_template(turn, add_generation_prompt=True)
    inputs = processor(images=scene.image(), text=prompt, return_tensors="pt")
    caption = model.generate(**inputs, max_new_tokens=60, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert caption[-1] == WORDS["<eos>"]
    assert any(name in processor.decode(caption) for name in scene.names if name in CLASSES)
    assert CAPTION_PROMPTS[1] == "please describe this image in detail ."


def test_bos_and_background_of_the_embedded_model_are_sinks_that_get_attention(embedded: tuple[Any, Any]) -> None:
    model, processor = embedded
    scenes = list(Scenes("natural", 8, seed=1))
    figures = sink_statistics(model, processor, scenes, caption_scenes(model, processor, scenes))
    for layer in range(2, 5):
        assert figures["sinks"]["bos"][layer] == 1
        assert figures["sinks"]["background"][layer] > 0.9
        assert figures["sinks"]["things"][layer] < 0.1
        assert figures["sinks"]["words"][layer] == 0
        assert figures["attention"]["sinks"][layer] > 0.05
        assert figures["attention"]["others"][layer] > 0.05
    assert model.config.text_config._attn_implementation == "sdpa"
    assert model.model.vision_tower.config._attn_implementation == "sdpa"
