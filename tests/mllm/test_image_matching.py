from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import transformers as hf
from PIL import Image
from tiny_matchers import GRID, WORDS, save_blip, save_open_clip
from torch import Tensor

from regard.mllm.image_matching import Match, Matcher, OpenClipMatcher, load_matcher

QUESTION = "Is there a red square?"


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_blip(tmp_path_factory.mktemp("models") / "blip")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_open_clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture(params=["blip", "clip"])
def matcher(request: pytest.FixtureRequest) -> Any:
    folder = request.getfixturevalue(request.param)
    return load_matcher(f"open_clip:local-dir:{folder}" if request.param == "clip" else str(folder), block=1)


def noise(seed: int = 0, size: tuple[int, int] = (48, 40)) -> Image.Image:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (size[1], size[0], 3), dtype=torch.uint8, generator=generator)
    return Image.fromarray(pixels.numpy())


@pytest.mark.parametrize("block", [0, 1])
def test_the_map_of_blip_is_gradcam_by_hand(blip: Path, block: int) -> None:
    match = load_matcher(str(blip), block=block).match(noise(), QUESTION)

    model, processor = hf.BlipForImageTextRetrieval.from_pretrained(blip), hf.AutoProcessor.from_pretrained(blip)
    inputs = processor(images=noise(), text="is there a red square?", return_tensors="pt")
    tokens = inputs["input_ids"].shape[1] - 2
    joint = inputs["input_ids"].clone()
    joint[0, 0] = len(WORDS) + 1
    attention, gradient = [], []

    def watch(module: Any, args: tuple[Tensor, ...]) -> None:
        if args[0].shape[-1] == GRID**2 + 1:
            attention.append(args[0].detach())
            args[0].register_hook(gradient.append)

    model.text_encoder.encoder.layer[block].crossattention.self.dropout.register_forward_pre_hook(watch)
    model(joint, inputs["pixel_values"], attention_mask=inputs["attention_mask"]).itm_score[0, 1].backward()
    expected = torch.zeros(GRID**2)
    for head in range(2):
        for token in range(1, tokens + 1):
            for patch in range(GRID**2):
                weight, slope = (kind[0][0, head, token, patch + 1] for kind in (attention, gradient))
                expected[patch] += weight * max(slope, 0) / (2 * tokens)
    torch.testing.assert_close(match.relevance, expected.view(GRID, GRID), rtol=1e-3, atol=1e-8)
    assert expected.max() > 1e-4


def test_the_gradient_is_the_slope_of_the_score(blip: Path) -> None:
    """Without autograd: how the score changes with one weight of attention."""
    matcher = load_matcher(str(blip), block=1)
    model = matcher.model.double()
    seen = torch.randn(1, 5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    tokens = torch.tensor([[2, 7, 8, 3]])
    found = matcher._gradcam(seen, tokens, torch.ones_like(tokens))
    joint = torch.tensor([[len(WORDS) + 1, 7, 8, 3]])
    layer = model.text_encoder.encoder.layer[1].crossattention.self.dropout

    def run(head: int, word: int, patch: int, step: float) -> tuple[float, float]:
        weight = []

        def move(module: Any, args: tuple[Tensor, ...]) -> None:
            weight.append(args[0][0, head, word, patch].item())
            args[0][0, head, word, patch] += step

        hook = layer.register_forward_pre_hook(move)
        with torch.no_grad():
            last = model.text_encoder(joint, torch.ones_like(joint), encoder_hidden_states=seen).last_hidden_state
        hook.remove()
        return model.itm_head(last[:, 0])[0, 1].item(), weight[0]

    for word, patch in ((0, 1), (1, 3), (1, 4), (2, 1), (2, 2)):
        expected = 0.0
        for head in range(2):
            (above, weight), (below, _) = run(head, word, patch, 1e-5), run(head, word, patch, -1e-5)
            expected += weight * max((above - below) / 2e-5, 0) / 2
        assert found[word, patch - 1].item() == pytest.approx(expected, rel=1e-3, abs=1e-8)
    assert found[1:].max() > 1e-5


def test_the_similarity_is_that_of_the_contrastive_head(blip: Path) -> None:
    match = load_matcher(str(blip), block=1).match(noise(), QUESTION)
    model, processor = hf.BlipForImageTextRetrieval.from_pretrained(blip), hf.AutoProcessor.from_pretrained(blip)
    inputs = processor(images=noise(), text=QUESTION.lower(), return_tensors="pt")
    assert match.similarity == pytest.approx(model(**inputs, use_itm_head=False).itm_score.item(), abs=1e-5)


def test_blip_without_rows_to_spare_keeps_its_first_token(tmp_path: Path) -> None:
    assert load_matcher(str(save_blip(tmp_path / "plain", spare=0)), block=0)._joint_token is None
    assert load_matcher(str(save_blip(tmp_path / "blip", spare=2)), block=0)._joint_token == len(WORDS) + 1


@pytest.mark.parametrize("pool", ["tok", "avg"])
def test_the_map_of_open_clip_is_gradient_times_activation(tmp_path: Path, pool: str) -> None:
    folder = save_open_clip(tmp_path / "clip", pool=pool)
    match = load_matcher(f"open_clip:local-dir:{folder}").match(noise(), QUESTION)

    name = f"local-dir:{folder}"
    model, preprocess = open_clip.create_model_from_pretrained(name, image_resize_mode="squash")
    kept: list[Tensor] = []
    model.visual.transformer.resblocks[1].ln_1.register_forward_hook(lambda module, args, output: kept.append(output))
    seen = model.encode_image(preprocess(noise())[None], normalize=True)
    read = model.encode_text(open_clip.get_tokenizer(name)([QUESTION]), normalize=True)
    kept[0].retain_grad()
    similarity = (seen * read).sum()
    similarity.backward()
    expected = (kept[0] * kept[0].grad).sum(dim=-1)[0, 1:].relu().detach()
    torch.testing.assert_close(match.relevance, expected.view(GRID, GRID), rtol=1e-3, atol=1e-8)
    assert match.similarity == pytest.approx(similarity.item(), abs=1e-5)
    assert expected.max() > 1e-4


def test_a_vision_tower_of_timm_has_a_map_too() -> None:
    vision = {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "token", "timm_proj": "linear", "image_size": 224}
    text = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    model = open_clip.CustomTextCLIP(8, vision, text)
    preprocess = open_clip.image_transform(224, is_train=False, resize_mode="squash")
    match = OpenClipMatcher(model, open_clip.SimpleTokenizer(context_length=16), preprocess).match(noise(), QUESTION)
    assert match.relevance.shape == (14, 14)
    assert match.relevance.max() > 1e-4


def test_a_vision_tower_without_patches_is_refused() -> None:
    vision = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}
    model = open_clip.CLIP(8, vision, {"context_length": 16, "width": 16, "heads": 2, "layers": 1})
    with pytest.raises(ValueError, match="ModifiedResNet has no transformer"):
        OpenClipMatcher(model, open_clip.SimpleTokenizer(), lambda image: torch.zeros(3, 32, 32))


@pytest.mark.parametrize(("row", "column"), [(1, 6), (6, 1), (0, 7), (7, 0)])
def test_the_map_lands_where_the_image_differs(matcher: Matcher, row: int, column: int) -> None:
    image = Image.new("RGB", (20 * GRID, 10 * GRID), "gray")
    image.paste((255, 0, 0), (20 * column, 10 * row, 20 * (column + 1), 10 * (row + 1)))
    relevance = matcher.match(image, QUESTION).relevance
    odd = (relevance - relevance.median()).abs()
    assert odd.max() > 1e-4
    assert odd.argmax().item() == row * GRID + column


def test_the_parameters_are_frozen_and_without_gradients(matcher: Any) -> None:
    matcher.match(noise(), QUESTION)
    parameters = list(matcher.model.parameters())
    assert all(not parameter.requires_grad and parameter.grad is None for parameter in parameters)
    assert not matcher.model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in matcher.model.modules())


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_callers_gradient_mode_neither_matters_nor_changes(
    blip: Path, clip: Path, context: Callable[[], Any]
) -> None:
    for name in (str(blip), f"open_clip:local-dir:{clip}"):
        expected = load_matcher(name, block=1).match(noise(), QUESTION)
        with context():
            before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
            match = load_matcher(name, block=1).match(noise(), QUESTION)
            assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before
        torch.testing.assert_close(match.relevance, expected.relevance)
        assert not match.relevance.requires_grad


def test_weights_may_be_bfloat16(blip: Path, clip: Path) -> None:
    for name in (str(blip), f"open_clip:local-dir:{clip}"):
        fine = load_matcher(name, block=1).match(noise(), QUESTION)
        coarse = load_matcher(name, block=1, dtype="bfloat16").match(noise(), QUESTION)
        assert coarse.similarity == pytest.approx(fine.similarity, abs=0.05)
        assert coarse.relevance.dtype == torch.float32
        assert coarse.relevance.max() > 0


def test_a_question_without_words_is_refused(matcher: Matcher) -> None:
    with pytest.raises(ValueError, match="has no words"):
        matcher.match(noise(), "  ")


@pytest.mark.parametrize("block", [-1, 2, 6])
def test_a_block_without_a_map_is_refused(blip: Path, block: int) -> None:
    with pytest.raises(ValueError, match=f"blocks 0 to 1 .*got block={block}"):
        load_matcher(str(blip), block=block)


def test_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        Match(0.5, torch.full((2, 2), torch.nan))


def test_weights_of_open_clip_may_be_a_file(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = json.loads((clip / "open_clip_config.json").read_text())["model_cfg"]
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", config)
    found = load_matcher(f"open_clip:tiny:{clip / 'open_clip_model.safetensors'}").match(noise(), QUESTION)
    expected = load_matcher(f"open_clip:local-dir:{clip}").match(noise(), QUESTION)
    torch.testing.assert_close(found.relevance, expected.relevance)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/nowhere/blip", "Salesforce/blip-itm-large-coco"),
        ("open_clip:ViT-B-32", "laion2b"),
        ("open_clip:ViT-B-32:/nowhere/weights.safetensors", "open_clip:local-dir:FOLDER"),
        ("open_clip:local-dir:/nowhere", "open_clip:ARCH:FILE.safetensors"),
        ("open_clip:none", "has no weights"),
    ],
)
def test_the_message_about_a_missing_model_names_what_to_give(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        load_matcher(name)
    assert repr(name) in str(raised.value)


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    hf.BertConfig(hidden_size=8).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="type 'bert', not 'blip'"):
        load_matcher(str(tmp_path))


def test_blip_without_a_matching_head_is_refused(tmp_path: Path) -> None:
    folder = save_blip(tmp_path / "blip")
    hf.BlipModel(hf.BlipConfig.from_pretrained(folder)).save_pretrained(folder)
    with pytest.raises(ValueError, match="not one for image-text matching"):
        load_matcher(str(folder))


def test_weights_that_could_run_code_are_refused(tmp_path: Path) -> None:
    folder = save_blip(tmp_path / "blip")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="cannot load the matching model"):
        load_matcher(str(folder))


def test_open_clip_without_weights_in_its_folder_is_refused(tmp_path: Path) -> None:
    folder = save_open_clip(tmp_path / "clip")
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(ValueError, match="cannot load the matching model"):
        load_matcher(f"open_clip:local-dir:{folder}")
