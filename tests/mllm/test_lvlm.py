"""The wrapper: prompts, answers, scores, and one clear line for each mistake."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lvlm_folder
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LlamaConfig, LlamaForCausalLM

from regard.mllm import LVLM, PAI, VAR, VHR, intervene
from regard.mllm.answer import token_texts
from regard.mllm.images import as_image

DOG, ANY = "is there a dog in the image ?", "describe the image ."
IMAGE = lvlm_folder.WORDS["<image>"]


def photo(seed: int, width: int = 32, height: int = 32) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lvlm_folder.save(tmp_path_factory.mktemp("lvlm"))


@pytest.fixture(scope="module")
def lvlm(folder: Path) -> LVLM:
    return LVLM.load(folder, device="cpu")


def test_a_loaded_model_answers_with_the_attention_asked_for(folder: Path) -> None:
    loaded = LVLM.load(folder, device="cpu", text_attention="eager", dtype="bfloat16")
    assert loaded.model.dtype == torch.bfloat16
    assert loaded.model.model.language_model.config._attn_implementation == "eager"
    assert loaded.model.model.vision_tower.config._attn_implementation == "sdpa"
    assert not loaded.model.training
    assert loaded.tokenizer.padding_side == "left"
    assert loaded.answer([photo(0)], [DOG], max_new_tokens=2)[0].text


def test_half_precision_becomes_single_on_a_cpu_unless_it_is_asked_for(tmp_path: Path) -> None:
    lvlm_folder.build().half().save_pretrained(tmp_path)
    lvlm_folder.processor().save_pretrained(tmp_path)
    assert LVLM.load(tmp_path, device="cpu").model.dtype == torch.float32
    assert LVLM.load(tmp_path, device="cpu", dtype="float16").model.dtype == torch.float16


def test_prompts_are_padded_on_the_left_and_know_their_image(lvlm: LVLM) -> None:
    inputs = lvlm.prepare([photo(0), photo(1)], [DOG, ANY])
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape
    assert inputs["attention_mask"][:, -1].all()
    assert inputs["attention_mask"][1, 0] == 0
    mask = lvlm.image_mask(inputs)
    assert mask.sum(dim=1).tolist() == [16, 16]
    assert (inputs["input_ids"][mask] == IMAGE).all()
    free = lvlm.without_image(inputs)
    assert not (free["input_ids"] == IMAGE).any()
    assert free["attention_mask"].sum(dim=1).tolist() == (inputs["attention_mask"].sum(dim=1) - 16).tolist()


def test_a_placeholder_says_where_the_image_belongs(lvlm: LVLM) -> None:
    inputs = lvlm.prepare([[photo(0), photo(1)]], ["red <image> blue <image> white"])
    words = lvlm.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])
    assert words == [
        "<bos>",
        "user",
        ":",
        "red",
        *["<image>"] * 16,
        "blue",
        *["<image>"] * 16,
        "white",
        "assistant",
        ":",
    ]
    plain = lvlm.prepare([photo(0)], ["<image> red"], template=False)
    assert lvlm.tokenizer.convert_ids_to_tokens(plain["input_ids"][0]) == ["<bos>", *["<image>"] * 16, "red"]


def test_without_a_chat_template_the_image_comes_first(lvlm: LVLM) -> None:
    bare = lvlm_folder.processor()
    bare.chat_template = None
    inputs = LVLM(lvlm.model, bare).prepare([photo(0)], ["red"])
    assert inputs["input_ids"][0].tolist() == [1, *[IMAGE] * 16, lvlm_folder.WORDS["red"]]


@pytest.mark.parametrize("kind", ["path", "text", "array", "floats", "tensor", "float_tensor", "palette"])
def test_an_image_may_be_given_in_many_forms(kind: str, lvlm: LVLM, tmp_path: Path) -> None:
    image = photo(3)
    image.save(tmp_path / "image.png")
    array = np.asarray(image)
    given: dict[str, Any] = {
        "path": tmp_path / "image.png",
        "text": str(tmp_path / "image.png"),
        "array": array,
        "floats": array.astype(np.float64) / 255,
        "tensor": torch.tensor(array).permute(2, 0, 1),
        "float_tensor": torch.tensor(array).permute(2, 0, 1) / 255,
        "palette": image.quantize(256),
    }
    expected = as_image(given[kind]) if kind == "palette" else image
    assert as_image(given[kind]).tobytes() == expected.tobytes()
    inputs = lvlm.prepare([given[kind]], [DOG])
    torch.testing.assert_close(inputs["pixel_values"], lvlm.prepare([expected], [DOG])["pixel_values"])


def test_a_rotated_photograph_is_turned_upright(tmp_path: Path) -> None:
    image, exif = photo(0, width=6, height=4), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    assert as_image(tmp_path / "turned.png").size == (4, 6)


def test_the_seen_image_is_what_the_crop_left(lvlm: LVLM) -> None:
    image = Image.new("RGB", (64, 32), "red")
    image.paste("blue", (16, 0, 48, 32))  # the middle, which is what the processor keeps
    seen = lvlm.seen_images(lvlm.prepare([image], [DOG]))
    assert seen is not None
    assert seen[0].size == (32, 32)
    assert max(abs(a - b) for a, b in zip(seen[0].getpixel((16, 16)), (0, 0, 255), strict=True)) < 3


def test_an_answer_does_not_depend_on_its_batch(lvlm: LVLM) -> None:
    images = [photo(0), None, [photo(1), photo(2)], photo(3)]
    questions = [DOG, ANY, ANY, DOG]
    together = lvlm.answer(images, questions, max_new_tokens=6)
    for size in (1, 3):
        assert lvlm.answer(images, questions, max_new_tokens=6, batch_size=size) == together
    assert len({answer.text for answer in together}) > 1


def test_tokens_join_to_the_text_and_the_limit_is_told(lvlm: LVLM) -> None:
    answer = lvlm.answer([photo(0)], [DOG], max_new_tokens=6)[0]
    assert "".join(answer.tokens).strip() == answer.text
    assert len(answer.tokens) == 6
    assert not answer.complete
    ends = lvlm.model.generation_config.eos_token_id
    try:
        lvlm.model.generation_config.eos_token_id = lvlm_folder.WORDS[answer.tokens[2].strip()]
        short = lvlm.answer([photo(0)], [DOG], max_new_tokens=6)[0]
    finally:
        lvlm.model.generation_config.eos_token_id = ends
    assert short.complete
    cut = next(index for index, token in enumerate(answer.tokens) if token.strip() == answer.tokens[2].strip())
    assert short.tokens == answer.tokens[:cut]


def test_a_letter_of_several_tokens_belongs_to_the_last_of_them() -> None:
    class Bytes:
        def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
            return bytes(ids).decode(errors="replace")

    assert token_texts(Bytes(), list("aäb".encode())) == ("a", "", "ä", "b")


def test_greedy_sampling_and_beams_are_what_generate_does(lvlm: LVLM) -> None:
    inputs = lvlm.prepare([photo(0)], [DOG])
    start = inputs["input_ids"].shape[1]

    def generated(**options: Any) -> str:
        tokens = lvlm.model.generate(**inputs, max_new_tokens=6, **options)[0, start:]
        return str(lvlm.tokenizer.decode(tokens, skip_special_tokens=True)).strip()

    def answered(**options: Any) -> str:
        return lvlm.answer([photo(0)], [DOG], max_new_tokens=6, **options)[0].text

    assert answered() == generated(do_sample=False)
    assert answered(beams=3) == generated(do_sample=False, num_beams=3)
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    drawn = answered(temperature=2.0, seed=7)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert drawn == answered(temperature=2.0, seed=7)
    assert len({answered(temperature=2.0, seed=seed) for seed in range(4)}) > 1
    torch.manual_seed(7)
    assert drawn == generated(do_sample=True, temperature=2.0, top_k=0, top_p=1.0)


def test_attention_on_view_is_that_of_the_image_tokens_in_their_grid(lvlm: LVLM) -> None:
    image, interventions = photo(0, width=50), [PAI(alpha=0.5, gamma=1.0, layers="all")]
    plain = lvlm.answer([image, [image, photo(1)]], [DOG, ANY], max_new_tokens=4, watch=True)
    assert [[tuple(view.shape) for view in answer.attention or ()] for answer in plain] == [
        [(4, 4, 4)],
        [(4, 4, 4)] * 2,
    ]
    inputs = lvlm.prepare([image], [DOG])
    with intervene(lvlm.model, watch=True) as session:
        session.generate(**inputs, max_new_tokens=4, do_sample=False)
    paid = session.attention().mean(dim=2)[0][:, lvlm.image_mask(inputs)[0]]
    assert plain[0].attention is not None
    torch.testing.assert_close(plain[0].attention[0], paid.view(4, 4, 4))
    more = lvlm.answer([image], [DOG], interventions=interventions, max_new_tokens=4, watch=True)[0]
    assert more.attention is not None
    assert more.attention[0][0].sum() > plain[0].attention[0][0].sum()


def test_activity_is_told_for_each_sample(lvlm: LVLM) -> None:
    vhr = VHR(alpha=2.0, layers="all")
    answers = lvlm.answer([photo(0), None], [DOG, DOG], interventions=vhr, max_new_tokens=3)
    assert [answer.activity[0].active for answer in answers] == [True, False]
    assert answers[0].activity[0].heads.shape == (1, 4)


def test_an_intervention_that_did_nothing_for_all_prompts_is_an_error_unless_it_is_accepted(lvlm: LVLM) -> None:
    vhr = VHR(layers="all")
    with pytest.raises(RuntimeError, match="vhr changed nothing for any of these prompts"):
        lvlm.answer(None, [DOG], interventions=vhr, max_new_tokens=2)
    with pytest.raises(RuntimeError, match="vhr changed nothing"):
        lvlm.score(None, [DOG], ["yes"], interventions=vhr)
    accepted = lvlm.answer(None, [DOG], interventions=vhr, max_new_tokens=2, allow_inactive=True)
    assert accepted[0].tokens == lvlm.answer(None, [DOG], max_new_tokens=2)[0].tokens


INTERVENTIONS: dict[str, Callable[[], list[Any]]] = {
    "baseline": list,
    "vhr": lambda: [VHR(alpha=2.0, layers="all")],
    "pai": lambda: [PAI(alpha=0.4, gamma=1.2, plausible=1e-30, layers="1:")],
    "both": lambda: [VHR(alpha=1.5, layers="1:"), PAI(alpha=0.4, gamma=1.0, layers="all")],
}


@pytest.mark.parametrize("name", INTERVENTIONS)
def test_a_score_is_the_probability_of_the_answer_while_it_is_generated(name: str, lvlm: LVLM) -> None:
    interventions = INTERVENTIONS[name]()
    inputs = lvlm.prepare([photo(0)], [DOG])
    with intervene(lvlm.model, interventions) as session:
        options = {"max_new_tokens": 5, "do_sample": False, "output_scores": True, "return_dict_in_generate": True}
        out = session.generate(**inputs, **options)
    words = out.sequences[0, inputs["input_ids"].shape[1] :]
    sums = torch.stack([table[0].log_softmax(dim=-1)[word] for table, word in zip(out.scores, words, strict=True)])
    answers = [lvlm.tokenizer.decode(words[:end]) for end in (5, 1, 3)]
    scores = lvlm.score([photo(0)], [DOG], answers, interventions=interventions)
    expected = sums.cumsum(dim=0)[[4, 0, 2]]
    torch.testing.assert_close(scores[0], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", INTERVENTIONS)
def test_a_score_depends_neither_on_its_batch_nor_on_the_other_answers(name: str, lvlm: LVLM) -> None:
    interventions, answers = INTERVENTIONS[name](), ["yes", "no", "red dog", "red dog and white", "no cat"]
    images, questions = [photo(0), photo(1), [photo(2), photo(3)]], [DOG, ANY, DOG]
    scores = lvlm.score(images, questions, answers, interventions=interventions)
    assert torch.isfinite(scores).all()
    for row in range(3):
        for column in (0, 3):
            alone = lvlm.score(
                images[row : row + 1], questions[row : row + 1], [answers[column]], interventions=interventions
            )
            torch.testing.assert_close(alone[0, 0], scores[row, column], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        lvlm.score(images, questions, answers, interventions=interventions, batch_size=2), scores, atol=1e-4, rtol=1e-4
    )
    if interventions:
        assert (lvlm.score(images, questions, answers) - scores).abs().max() > 1e-2


@pytest.mark.parametrize("name", INTERVENTIONS)
def test_answers_that_are_read_are_likeliest_if_the_model_would_say_them(name: str, lvlm: LVLM) -> None:
    interventions = INTERVENTIONS[name]()
    answer_words = lvlm.answer([photo(0)], [DOG], interventions=interventions, max_new_tokens=4)[0].text.split()
    answers = [" ".join(answer_words[:end]) for end in (1, 4)] + ["no cat", " ".join([*answer_words[:2], "<unk>"])]
    read = lvlm.read([photo(0)], [DOG], answers, interventions=interventions)
    assert read.lengths.tolist() == [[1, 4, 2, 3]]
    assert read.greedy.tolist() == [[True, True, answer_words[:2] == ["no", "cat"], False]]
    assert read.active == {intervention.name for intervention in interventions}
    torch.testing.assert_close(read.scores, lvlm.score([photo(0)], [DOG], answers, interventions=interventions))


def test_probabilities_of_a_closed_set_sum_to_one_even_if_an_intervention_rules_all_out(lvlm: LVLM) -> None:
    shares = lvlm.score([photo(0)], [DOG], ["yes", "no"], normalise=True)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(1))
    torch.testing.assert_close(shares, lvlm.score([photo(0)], [DOG], ["yes", "no"]).softmax(dim=-1))
    rare = ["yes", "no", "red", "blue", "cat", "dog"]
    strict = PAI(alpha=0.0, gamma=1.2, plausible=1.0)
    out = lvlm.score([photo(0)], [DOG], rare, interventions=strict)
    hidden = [word for word, score in zip(rare, out[0], strict=True) if score == -torch.inf]
    assert len(hidden) > 1
    shares = lvlm.score([photo(0)], [DOG], hidden, interventions=strict, normalise=True)
    torch.testing.assert_close(shares, torch.full((1, len(hidden)), 1 / len(hidden)))


def test_prepared_answers_follow_their_prompts(lvlm: LVLM) -> None:
    prompts = lvlm.prepare([photo(0), photo(1)], [DOG, ANY])
    inputs = lvlm.prepare([photo(0), photo(1)], [DOG, ANY], answers=["yes", "no cat"])
    length = prompts["input_ids"].shape[1]
    assert torch.equal(inputs["input_ids"][:, :length], prompts["input_ids"])
    words = [[lvlm_folder.WORDS["yes"], 0], [lvlm_folder.WORDS["no"], lvlm_folder.WORDS["cat"]]]
    assert inputs["input_ids"][:, length:].tolist() == words
    assert inputs["attention_mask"][:, length:].tolist() == [[1, 0], [1, 1]]


@pytest.mark.parametrize(
    ("images", "questions", "hint"),
    [
        (None, ["<image> red"], "needs one image (<image>), but no image was given"),
        ([None], ["<image> red"], "needs one image (<image>), but no image was given"),
        ([photo(0)], ["<image> red <image>"], "needs 2 images (<image>), but one image given"),
        ([[photo(0), photo(1)]], ["<image> red"], "2 images given for 1 placeholders"),
        ([photo(0)], ["red", "blue"], "1 images were given for 2 questions"),
        ([photo(0)], [" "], "a question is empty"),
        ([photo(0)], "red", "questions must be a non-empty list"),
        ([], [], "questions must be a non-empty list"),
        (["no/such/image.png"], ["red"], "cannot read the image no/such/image.png: no such file"),
        ([np.zeros((3, 4, 5), np.uint8)], ["red"], "an array is (height, width, 3); got the shape (3, 4, 5)"),
        ([np.full((4, 4, 3), 7.0)], ["red"], "the values of an image are 0 to 1 for float64; got 7 to 7"),
        ([np.full((4, 4, 3), np.nan)], ["red"], "the values of an image are 0 to 1"),
    ],
)
def test_a_wrong_prompt_is_named(images: Any, questions: Any, hint: str, lvlm: LVLM) -> None:
    for ask in (lvlm.prepare, lvlm.answer, lambda some, asked: lvlm.score(some, asked, ["yes"])):
        with pytest.raises(ValueError, match=re.escape(hint)):
            ask(images, questions)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + b"broken"])
def test_an_unreadable_image_is_named(content: bytes, lvlm: LVLM, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read the image .*bad\.png: "):
        lvlm.answer([photo(0), tmp_path / "bad.png"], [DOG, DOG])


def test_images_without_a_placeholder_need_the_template(lvlm: LVLM) -> None:
    with pytest.raises(ValueError, match=r"one image given for 0 placeholders .* or let template=True put them first"):
        lvlm.prepare([photo(0)], ["red"], template=False)


def test_what_an_intervention_cannot_do_here_is_said_before_anything_is_generated(lvlm: LVLM) -> None:
    with pytest.raises(ValueError, match="layer 30 of '30' does not exist; the model has 4 layers"):
        lvlm.answer([photo(0)], [DOG], interventions=VHR(layers="30"))
    with pytest.raises(ValueError, match=r"no sink dimensions are known .*discover_sinks.*regard sinks"):
        lvlm.score([photo(0)], [DOG], ["yes"], interventions=VAR())


@pytest.mark.parametrize(
    "options", [{"max_new_tokens": 0}, {"beams": 0}, {"batch_size": 0}, {"temperature": -1.0}, {"top_p": 0.0}]
)
def test_a_number_out_of_range_is_named(options: dict[str, Any], lvlm: LVLM) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))}={next(iter(options.values()))}"):
        lvlm.answer([photo(0)], [DOG], **options)


def test_beams_cannot_be_watched(lvlm: LVLM) -> None:
    with pytest.raises(ValueError, match="watch=True needs beams=1"):
        lvlm.answer([photo(0)], [DOG], beams=3, watch=True)


def test_a_model_without_images_is_refused(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    lvlm_folder.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"does not accept images: .*'llama'.* Load a vision-language model"):
        LVLM.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ("no config", "config.json is not there"),
        ("broken config", "cannot load config.json"),
        ("unknown kind", "needs code that transformers does not have, and code from a model's folder is never run"),
        ("no processor", "its processor (preprocessor_config.json"),
        ("no tokenizer", "its processor (preprocessor_config.json"),
        ("pickle only", "no weights as safetensors"),
        ("no weights", "no weights as safetensors"),
        ("broken weights", "cannot load its weights"),
    ],
)
def test_what_is_wrong_with_a_folder_is_named(change: str, hint: str, folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    if change == "no config":
        (copy / "config.json").unlink()
    elif change == "broken config":
        (copy / "config.json").write_text("{")
    elif change == "unknown kind":
        config = json.loads((copy / "config.json").read_text())
        config |= {"model_type": "surprise", "auto_map": {"AutoConfig": "evil.Config"}}
        (copy / "config.json").write_text(json.dumps(config))
        (copy / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    elif change == "no processor":
        (copy / "processor_config.json").unlink()
    elif change == "no tokenizer":
        (copy / "tokenizer.json").unlink()
        (copy / "tokenizer_config.json").unlink()
    elif change == "broken weights":
        (copy / "model.safetensors").write_bytes(b"broken")
    else:
        (copy / "model.safetensors").unlink()
        if change == "pickle only":
            torch.save({}, copy / "pytorch_model.bin")
    with pytest.raises(ValueError, match=re.escape(hint)):
        LVLM.load(copy, device="cpu")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("model", "options", "hint"),
    [
        ("no/such/folder/here", {}, "there is no folder no/such/folder/here; give embedded, the folder"),
        ("embeded", {}, "there is no folder embeded; give embedded"),
        ("nobody/nothing", {"local_files_only": True}, "Give the folder of a model that is on this machine"),
        (None, {"dtype": "bfloat61"}, "no dtype is called 'bfloat61'; did you mean bfloat16?"),
        (None, {"dtype": "int8"}, "no dtype is called 'int8'"),
        (None, {"device": "gpu"}, "no device is called 'gpu'"),
        (None, {"device": "cuda:99"}, "the device cuda:99 is not available"),
        (None, {"device": "cpu", "device_map": "auto"}, "device or device_map, not both"),
        (None, {"text_attention": "fast"}, "fast"),
    ],
)
def test_a_wrong_way_to_load_is_named(model: str | None, options: dict[str, Any], hint: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(hint)):
        LVLM.load(model or folder, **options)


def test_the_embedded_model_describes_its_example() -> None:
    embedded = LVLM.load(device="cpu")
    assert embedded.model.dtype == torch.float32
    answer = embedded.answer([embedded.example_image()], ["describe the image in detail ."], max_new_tokens=60)[0]
    assert answer.complete
    assert answer.text.startswith("the image shows a ")
    shares = embedded.score(
        [embedded.example_image()], ["is there a bird in the image ?"], ["yes", "no"], normalise=True
    )
    assert shares[0, 0] > 0.5
