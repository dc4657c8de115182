"""Realistic data for `regard.tools.evaluate.report.build.build_report`: three arms, questions and captions."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFilter

from regard.tools.evaluate.report.build import data_uri

__all__ = ["ARMS", "HOSTILE", "caption_samples", "example", "question_samples"]

ARMS = ("none", "vdd(alpha=0.5)", 'rebalance(alpha=0.4, beta=0.2, gamma=1.0, layers="all")')
HOSTILE = (
    "</script><script>document.title='broken'</script><img src=x onerror=\"document.title='broken'\"> & <b>bold</b>"
)

_THINGS = ("dog", "bench", "kite", "bicycle", "cup", "backpack", "umbrella", "dining table", "person", "car")
_GUARDS = ("words", "tokens", "repetition_percent", "empty_percent", "at_limit_percent")


def example(questions: int = 48, captions: int = 24, side_px: int = 96) -> dict[str, Any]:
    """The data of a report.

    Args:
        questions: samples of the benchmark of questions.
        captions: samples of the benchmark of captions.
        side_px: of the images.
    """
    rng = random.Random(0)
    images: dict[str, str] = {}
    asked = question_samples(rng, questions, images, side_px)
    described = caption_samples(rng, captions, images, side_px)
    return {
        "title": "Do VDD and rebalancing invent less? LLaVA-1.5-7B on POPE and CHAIR",
        "settings": {
            "model": "llava-hf/llava-1.5-7b-hf",
            "benchmark": ["pope", "chair"],
            "fix": list(ARMS),
            "seed": 0,
            "resamples": 10000,
            "decoding": {"max_new_tokens": 512, "temperature": 0.0, "beams": 1},
        },
        "versions": {"regard": "0.1.0", "torch": "2.14.0", "transformers": "5.24.0"},
        "benchmarks": [
            {"name": "pope", "scores": _question_scores(rng), "costs": _costs(), "samples": asked},
            {"name": "chair", "scores": _caption_scores(rng, described), "costs": None, "samples": described},
        ],
        "images": images,
    }


def question_samples(rng: random.Random, number: int, images: dict[str, str], side_px: int) -> list[dict[str, Any]]:
    """Two questions an image, in two parts; one has no image, and the last two nobody gets right."""
    samples = []
    for index in range(number):
        part = ("random", "adversarial")[index % 2]
        thing, truth = _THINGS[index % len(_THINGS)], ("yes", "no")[index // 2 % 2]
        image = f"pope {index // 2}"
        images.setdefault(image, _photo(rng, side_px))
        answers = {}
        for position, arm in enumerate(ARMS):
            right = rng.random() < (0.8, 0.86, 0.84)[position] and index < number - 2
            parsed = truth if right else {"yes": "no", "no": "yes"}[truth]
            text = f"{parsed.capitalize()}, there is {'a' if parsed == 'yes' else 'no'} {thing} in the image."
            plots = [f"{image} {arm}"] if index < 12 else []
            for key in plots:
                images[key] = _heat(rng, side_px)
            wrong = [thing] if parsed == "yes" and truth == "no" else []
            answers[arm] = {"text": text, "parsed": parsed, "correct": right, "invented": wrong, "attention": plots}
        samples.append(
            {
                "id": f"{part}-{index}",
                "image": None if index == 1 else image,
                "question": f"Is there a {thing} in the image?",
                "truth": truth,
                "part": part,
                "answers": answers,
            }
        )
    samples[0]["answers"][ARMS[1]]["text"] = HOSTILE
    return samples


def caption_samples(rng: random.Random, number: int, images: dict[str, str], side_px: int) -> list[dict[str, Any]]:
    """Captions; an arm often says what the baseline says, or leaves a sentence out; one answer is empty."""
    samples = []
    for index in range(number):
        there = rng.sample(_THINGS, 3)
        absent = [thing for thing in _THINGS if thing not in there]
        image = f"chair {index}"
        images[image] = _photo(rng, side_px)
        first = (
            f"The image shows a {there[0]} next to a {there[1]}. A {there[2]} can be seen in the background, "
            "and the scene looks calm and well lit."
        )
        invented = rng.sample(absent, rng.choice((0, 1, 1, 2)))
        extra = "".join(f" There is also a {thing} to the left, close to the {there[0]}." for thing in invented)
        kept = [invented, invented[: rng.choice((0, 1))], invented[: rng.choice((0, 1, 2))]]
        answers = {}
        for arm, own in zip(ARMS, kept, strict=True):
            more = extra if own == invented else "".join(f" To the left, there might be a {thing}." for thing in own)
            named = ", ".join([*there, *own])
            answers[arm] = {"text": first + more, "parsed": named, "correct": None, "invented": own, "attention": []}
        samples.append(
            {
                "id": f"COCO_val2014_{index:012d}",
                "image": image,
                "question": "Please help me describe the image in detail.",
                "truth": ", ".join(there),
                "part": "all",
                "answers": answers,
            }
        )
    samples[1]["answers"][ARMS[2]] |= {"text": "", "parsed": "", "invented": []}
    return samples


def _photo(rng: random.Random, side_px: int) -> str:
    """Ground, sky and round things, a little blurred."""
    sky, ground = ([rng.randrange(60, 230) for _ in range(3)] for _ in range(2))
    image = Image.linear_gradient("L").resize((side_px, side_px * 3 // 4)).convert("RGB")
    image = Image.blend(image, Image.new("RGB", image.size, tuple(sky)), 0.7)
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, side_px // 2, side_px, side_px), fill=tuple(ground))
    for _ in range(4):
        x, y, r = rng.randrange(side_px), rng.randrange(side_px // 3, side_px * 3 // 4), rng.randrange(4, side_px // 5)
        pen.ellipse((x - r, y - r, x + r, y + r), fill=tuple(rng.randrange(256) for _ in range(3)))
    noise = Image.effect_noise(image.size, 40).convert("RGB")
    return data_uri(Image.blend(image.filter(ImageFilter.GaussianBlur(1)), noise, 0.12), side_px)


def _heat(rng: random.Random, side_px: int) -> str:
    image = Image.radial_gradient("L").point(lambda value: 255 - value).resize((side_px * 2, side_px))
    image = image.rotate(rng.randrange(360))
    return data_uri(Image.merge("RGB", [image, image.point(lambda value: value // 2), image.rotate(180)]), side_px * 2)


def _cells(
    rng: random.Random, values: Sequence[float | None], width: float, sure: Sequence[bool] = (False, True, False)
) -> dict[str, Any]:
    """A row of arms; where it is sure, the interval of the difference excludes 0."""
    row: dict[str, Any] = {}
    for arm, value, apart in zip(ARMS, values, sure, strict=True):
        if value is None:
            row[arm] = {"value": None, "low": None, "high": None, "undefined": 1.0, "difference": None}
            continue
        spread = width * rng.uniform(0.8, 1.2)
        row[arm] = {"value": value, "low": value - spread, "high": value + spread, "undefined": 0.0, "difference": None}
        if arm != ARMS[0] and values[0] is not None:
            change = value - values[0]
            half = abs(change) * 0.7 if apart else abs(change) * 1.4 + width * 0.4
            p = rng.uniform(0.0005, 0.01) if apart else rng.uniform(0.06, 0.9)
            tests = {"p": p, "holm": min(1.0, 2 * p)}
            interval = {"low": change - half, "high": change + half, "undefined": 0.0}
            row[arm]["difference"] = {"value": change, **interval, **tests}
    return row


def _part(name: str, kind: str, samples: int, images: int, parsers: dict[str, Any], text: Any) -> dict[str, Any]:
    return {"part": name, "kind": kind, "samples": samples, "images": images, "parsers": parsers, "text": text}


def _text(rng: random.Random, words: Sequence[float], changed: Sequence[float | None]) -> dict[str, Any]:
    rows = {name: _cells(rng, (0.0, 0.0, 0.0), 0.0, (False, False, False)) for name in _GUARDS}
    rows["words"] = _cells(rng, words, 1.2)
    rows["tokens"] = _cells(rng, [1.3 * value for value in words], 1.5)
    rows["repetition_percent"] = _cells(rng, (1.2, 1.0, 2.9), 0.5, (False, False, True))
    for name, values in (("changed_percent", changed), ("active_percent", (None, 100.0, 98.2))):
        row = _cells(rng, values, 1.0)
        rows[name] = {arm: {**cell, "difference": None} for arm, cell in row.items()}
    return rows


def _summary(name: str, samples: int, images: int, **more: Any) -> dict[str, Any]:
    missing = dict.fromkeys(ARMS, 0)
    return {
        **{"benchmark": name, "baseline": ARMS[0], "arms": list(ARMS), "resamples": 10000, "seed": 0, "level": 0.95},
        **{"samples": samples, "paired": samples, "images": images, "missing": missing, "unknown": missing},
        **more,
    }


def _question_scores(rng: random.Random) -> dict[str, Any]:
    def metrics(lift: float) -> dict[str, Any]:
        return {
            "accuracy": _cells(rng, [0.812 + lift, 0.847 + lift, 0.823 + lift], 0.021),
            "precision": _cells(rng, [0.771 + lift, 0.862 + lift, 0.794 + lift], 0.025),
            "recall": _cells(rng, [0.893, 0.861, 0.891], 0.02, (False, True, False)),
            "f1": _cells(rng, [0.828 + lift, 0.861 + lift, 0.840 + lift], 0.02),
            "yes_percent": _cells(rng, [58.1, 50.2, 56.4], 1.5),
            "unknown": _cells(rng, [0.0, 4.0, 0.0], 1.0, (False, False, False)),
        }

    def parser(lift: float, whole: bool) -> dict[str, Any]:
        parsed = {"yes": (58.1, 50.2, 56.4), "no": (41.9, 49.6, 43.6), "unknown": (0.0, 0.2, 0.0)}
        rows = {word: _cells(rng, values, 1.4) for word, values in parsed.items()}
        tests = [
            {"gained": 71, "lost": 18, "p": 1e-8, "holm": 2e-8},
            {"gained": 40, "lost": 31, "p": 0.34, "holm": 0.34},
        ]
        return {
            "metrics": metrics(lift),
            "mcnemar": dict(zip(ARMS[1:], tests, strict=True)) if whole else None,
            "parsed": {f"{word}_percent": rows[word] for word in parsed} if whole else None,
        }

    def part(name: str, kind: str, samples: int, lift: float) -> dict[str, Any]:
        whole = kind != "mean"
        parsers = {"official": parser(lift, whole), "words": parser(lift - 0.01, whole)}
        text = _text(rng, (8.1, 8.0, 8.3), (None, 21.5, 9.6)) if whole else None
        return _part(name, kind, samples, 500, parsers, text)

    lists = [
        [_object(rng, thing, 40 - 3 * position - 9 * index, 1500) for position, thing in enumerate(_THINGS[:9])]
        for index in range(3)
    ]
    return _summary(
        "pope",
        3000,
        500,
        parts=[
            *(part("random", "part", 1500, 0.03), part("adversarial", "part", 1500, -0.02)),
            *(part("all", "pooled", 3000, 0.0), part("mean", "mean", 3000, 0.0)),
        ],
        objects={name: dict(zip(ARMS, lists, strict=True)) for name in ("official", "words")},
        activity=_activity(3000),
        skipped_images=[
            {"image": "COCO_val2014_000000016631.jpg", "reason": "cannot be read: it is empty", "samples": 6},
            {"image": "<img src=x onerror=alert(1)>.jpg", "reason": "no such file", "samples": 6},
        ],
        warnings=[
            {
                "arm": ARMS[1],
                "part": "adversarial",
                "text": "higher accuracy, f1, but 50.2 % of the answers are yes instead of 58.1 %; a shift towards one "
                "answer has the same effect",
            }
        ],
    )


def _caption_scores(rng: random.Random, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    values: dict[str, tuple[Sequence[float], float]] = {
        "chair_s": ((0.512, 0.286, 0.474), 0.045),
        "chair_i": ((0.148, 0.081, 0.141), 0.017),
        "recall": ((0.791, 0.772, 0.789), 0.02),
        "precision": ((0.803, 0.871, 0.809), 0.018),
        "f1": ((0.797, 0.819, 0.799), 0.015),
        "words": ((98.4, 71.9, 97.2), 2.1),
    }

    def parser() -> dict[str, Any]:
        rows = {name: _cells(rng, row, width) for name, (row, width) in values.items()}
        return {"metrics": rows, "mcnemar": None, "parsed": None}

    def mentions(arm: str) -> list[dict[str, Any]]:
        named = Counter(thing for one in samples for thing in one["answers"][arm]["invented"])
        rows = [_object(rng, thing, named[thing], len(samples)) for thing in _THINGS if named[thing]]
        for row in rows:
            row["samples"] = [one["id"] for one in samples if row["object"] in one["answers"][arm]["invented"]]
        return sorted(rows, key=lambda row: -row["mentions"])

    parsers = {"official": parser(), "fixed": parser()}
    number = len(samples)
    return _summary(
        "chair",
        number,
        number,
        parts=[_part("all", "part", number, number, parsers, _text(rng, (98.4, 71.9, 97.2), (None, 93.3, 41.0)))],
        objects={"official": {arm: mentions(arm) for arm in ARMS}, "fixed": {arm: [] for arm in ARMS}},
        activity=_activity(number),
        skipped_images=[],
        warnings=[
            {"arm": None, "part": "all", "text": "24 images only: intervals are rough, and rather too narrow"},
            {
                "arm": ARMS[1],
                "part": "all",
                "text": "lower chair_s, chair_i, but answers have 71.9 words and not 98.4; recall falls by 0.019",
            },
        ],
    )


def _object(rng: random.Random, name: str, mentions: int, answers: int) -> dict[str, Any]:
    mentions = max(mentions, 0)
    rate = 100 * mentions / answers
    others = [other for other in rng.sample(_THINGS, 4) if other != name]
    cooccurring = dict(zip(others, sorted((rng.randrange(1, mentions + 2) for _ in others), reverse=True), strict=True))
    return {
        **{"object": name, "mentions": mentions, "answers": mentions, "rate_percent": rate},
        **{"low": rate * 0.7, "high": rate * 1.35, "cooccurring": cooccurring, "samples": []},
    }


def _activity(answers: int) -> dict[str, list[dict[str, Any]]]:
    nothing = {"rows": 0, "heads": 0, "moved": 0.0, "to_image": 0.0, "change": 0.0}
    edits = {"rows": 212.4, "heads": 3398.0, "moved": 411.7, "to_image": 388.2, "change": 4.31, "token_change": 0.0}
    return {
        ARMS[0]: [],
        ARMS[1]: [{"intervention": "vdd", "answers": answers, "active": answers, **nothing, "token_change": None}],
        ARMS[2]: [{"intervention": "rebalance", "answers": answers, "active": answers - 2, **edits}],
    }


def _costs() -> dict[str, Any]:
    same = {"prompt": [1.0, 1.0, 1.0], "token": [1.0, 1.0, 1.0], "tokens_per_second": [1.0, 1.0, 1.0], "mb": 1.0}
    twice = {
        "prompt": [0.97, 0.98, 1.01],
        "token": [1.82, 1.84, 1.87],
        "tokens_per_second": [0.52, 0.54, 0.56],
        "mb": 1.0,
    }
    rows = [
        {"prompt_ms": 181.2, "token_ms": 24.31, "tokens_per_second": 41.1, "mb": 14210.0, "ratio": same},
        {"prompt_ms": 177.6, "token_ms": 44.73, "tokens_per_second": 22.3, "mb": 14240.0, "ratio": twice},
        {"prompt_ms": 190.3, "token_ms": 25.04, "tokens_per_second": 39.9, "mb": None, "ratio": {**same, "mb": None}},
    ]
    return {"device": "NVIDIA A100", "samples": 16, "new_tokens": 128, "arms": dict(zip(ARMS, rows, strict=True))}
