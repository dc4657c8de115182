from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import AutoProcessor

from regard.datasets.scene_captions import CAPTION_PROMPTS, HABITS, ONE_WORD, question_text, write_caption
from regard.datasets.scene_words import SPECIAL, WORDS, build_processor, build_tokenizer, word_ids
from regard.datasets.scenes import CLASSES, Scenes


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """As users get it: written to a folder and loaded."""
    folder = tmp_path_factory.mktemp("processor")
    build_processor().save_pretrained(folder)
    return AutoProcessor.from_pretrained(folder)


def test_all_that_is_ever_said_consists_of_known_words() -> None:
    rng = np.random.default_rng(0)
    texts = [write_caption(scene, rng, HABITS) for scene in Scenes("train", 200)]
    texts += [*CAPTION_PROMPTS, ONE_WORD, *map(question_text, CLASSES), "user : assistant : yes no"]
    used = {number for text in texts for number in word_ids(text)}
    assert used == {number for word, number in WORDS.items() if word not in SPECIAL and word != ","}


def test_the_tokenizer_gives_the_numbers_that_the_training_uses() -> None:
    tokenizer = build_tokenizer()
    rng = np.random.default_rng(0)
    for scene in Scenes("train", 20):
        text = write_caption(scene, rng)
        assert tokenizer(text)["input_ids"] == word_ids(f"<bos> {text}")
        assert tokenizer(text.upper().replace(" .", "."))["input_ids"] == word_ids(f"<bos> {text}")


def test_an_unknown_word_is_named_or_unk() -> None:
    with pytest.raises(ValueError, match="'unicorn' is not among the 64 words"):
        word_ids("a unicorn")
    assert build_tokenizer()("an unicorn")["input_ids"] == word_ids("<bos> a <unk>")


def test_decoded_text_reads_like_text() -> None:
    tokenizer = build_tokenizer()
    numbers = word_ids("<bos> there is a wine glass , is there ? <eos> <pad>")
    assert tokenizer.decode(numbers, skip_special_tokens=True) == "there is a wine glass, is there?"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
@pytest.mark.parametrize("size", [(96, 96), (200, 33), (5, 5)])
def test_any_image_becomes_36_image_tokens(processor: Any, mode: str, size: tuple[int, int]) -> None:
    inputs = processor(images=Image.new(mode, size), text="user : <image> describe", return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 3, 96, 96)
    assert (inputs["input_ids"] == WORDS["<image>"]).sum() == 36


def test_a_scene_is_not_resized(processor: Any) -> None:
    photo = Scenes("dev", 1)[0].image()
    values = processor(images=photo, text="<image>", return_tensors="np")["pixel_values"][0]
    expected = (np.asarray(photo, np.float32).transpose(2, 0, 1) / 255 - 0.5) / 0.25
    np.testing.assert_allclose(values, expected, atol=1e-5)


def test_the_chat_template_gives_the_prompt_of_the_training(processor: Any) -> None:
    turns = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Is there a dog in the image?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "no"}]},
        {"role": "user", "content": [{"type": "text", "text": "Is there a kite in the image?"}]},
    ]
    prompt = processor.apply_chat_template(turns, add_generation_prompt=True)
    numbers = processor(images=Image.new("RGB", (9, 9)), text=prompt)["input_ids"][0]
    wanted = (
        f"<bos> user : {'<image> ' * 36} is there a dog in the image ? assistant : no <eos> "
        "user : is there a kite in the image ? assistant :"
    )
    assert list(numbers) == word_ids(wanted)


def test_prompts_of_different_length_are_padded_on_the_left(processor: Any, tmp_path: Path) -> None:
    photos = [Image.new("RGB", (9, 9))] * 2
    inputs = processor(images=photos, text=["<image> a", "<image> a dog"], padding=True, return_tensors="pt")
    assert inputs["input_ids"][:, 0].tolist() == [WORDS["<pad>"], WORDS["<bos>"]]
    assert inputs["attention_mask"].sum(dim=1).tolist() == [38, 39]
