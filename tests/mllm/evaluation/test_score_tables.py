"""The table of several arms: pairing, parts, parsers, tests, and warnings about gains that are none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import regard
from regard.mllm.benchmarks import Benchmark, Counted, Sample
from regard.mllm.benchmarks.pope import POPE
from regard.mllm.evaluation.answer_files import StoredAnswer, read_answers
from regard.mllm.evaluation.answer_store import AnswerWriter
from regard.mllm.evaluation.arm_settings import Arm
from regard.mllm.evaluation.sample_file import write_samples
from regard.mllm.evaluation.score_tables import score
from regard.paired_statistics import bootstrap, holm, mcnemar


@dataclass(frozen=True)
class YesNo:
    """Questions with yes or no; the strict parser wants one word."""

    name: str = "yesno"

    def samples(self, data: Path) -> list[Sample]:
        return QUESTIONS

    def count(self, sample: Sample, answer: str) -> Mapping[str, Counted]:
        return {
            "loose": self._count(sample, "yes" if "yes" in answer.lower() else "no"),
            "strict": self._count(sample, answer),
        }

    def _count(self, sample: Sample, parsed: str) -> Counted:
        parsed = parsed if parsed in ("yes", "no") else "unknown"
        right = parsed == ("yes" if sample.truth else "no")
        invented = ("dog",) if parsed == "yes" and not sample.truth else ()
        numbers = {"right": float(right), "asked": 1.0, "yes": float(parsed == "yes")}
        return Counted(numbers=numbers, correct=right, parsed=parsed, invented=invented, true=("cat", "mat"))

    def metrics(self, sums: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        return {
            "accuracy_percent": 100 * sums["right"] / sums["asked"],
            "right_of_yes": sums["right"] / sums["yes"],
        }


@dataclass(frozen=True)
class Captions:
    """Captions whose words are objects; those of the truth are there."""

    name: str = "captions"

    def samples(self, data: Path) -> list[Sample]:
        return []

    def count(self, sample: Sample, answer: str) -> Mapping[str, Counted]:
        parsed = [word for word in answer.split() if word in ("cat", "dog", "cup", "bed")]
        invented = [word for word in parsed if word not in sample.truth]
        found = set(parsed) & set(sample.truth)
        parts = {"invented": invented, "parsed": parsed, "found": found, "there": sample.truth}
        numbers = {name: float(len(words)) for name, words in parts.items()}
        return {"words": Counted(numbers=numbers, parsed=parsed, invented=invented, true=sample.truth)}

    def metrics(self, sums: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        return {
            "chair_i_percent": 100 * sums["invented"] / sums["parsed"],
            "recall_percent": 100 * sums["found"] / sums["there"],
        }


QUESTIONS = [
    Sample(id=f"{part}/{index}", image=f"{index // 4}.jpg", question="Is there?", truth=index % 2 == 0, part=part)
    for part in ("random", "popular")
    for index in range(160)
]
SCENES = [
    Sample(id=str(index), image=f"{index}.jpg", question="Describe.", truth=["cat", "cup"]) for index in range(40)
]
POPE_LIKE = [
    Sample(id=str(index), image=f"{index // 4}.jpg", question="Is there?", truth="no" if index % 2 else "yes")
    for index in range(240)
]
ANSWER = StoredAnswer(id="", text="", tokens=3, at_limit=False)


def answers(samples: list[Sample], say: Callable[[int, Sample], str], **more: Any) -> list[StoredAnswer]:
    return [replace(ANSWER, id=one.id, text=say(index, one), **more) for index, one in enumerate(samples)]


def correct(share: float, seed: int) -> Callable[[int, Sample], str]:
    generator = np.random.default_rng(seed)
    return lambda index, sample: "yes" if (generator.random() < share) == sample.truth else "no"


ARMS = {
    "base": answers(QUESTIONS, correct(0.7, 0)),
    "good": answers(QUESTIONS, correct(0.85, 1)),
    "same": answers(QUESTIONS, correct(0.7, 2)),
}


def warned(summary: dict[str, Any], arm: str) -> str:
    return " | ".join(one["text"] for one in summary["warnings"] if one["arm"] == arm)


def test_the_fake_benchmarks_keep_the_contract() -> None:
    assert isinstance(YesNo(), Benchmark)
    assert isinstance(Captions(), Benchmark)


def test_every_number_of_a_part_is_that_of_the_statistics() -> None:
    summary = score(QUESTIONS, YesNo(), ARMS, resamples=500, seed=4)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert [(one["part"], one["kind"], one["samples"], one["images"]) for one in summary["parts"]] == [
        ("random", "part", 160, 40),
        ("popular", "part", 160, 40),
        ("all", "pooled", 320, 40),
        ("mean", "mean", 320, 40),
    ]
    assert summary["arms"] == ["base", "good", "same"]
    rows = slice(160, 320)
    own = summary["parts"][1]["parsers"]["loose"]
    right = {
        arm: np.array([(one.text == "yes") == sample.truth for one, sample in zip(parsed, QUESTIONS, strict=True)])[
            rows
        ]
        for arm, parsed in ARMS.items()
    }
    found = bootstrap(
        [sample.image for sample in QUESTIONS[rows]],
        {arm: {"right": own.astype(float), "asked": np.ones(160)} for arm, own in right.items()},
        lambda sums: {"accuracy": 100 * sums["right"] / sums["asked"]},
        baseline="base",
        resamples=500,
        seed=4,
    )
    scores = own["metrics"]["accuracy_percent"]
    assert scores["base"]["difference"] is None
    adjusted = holm([found.differences[arm]["accuracy"].p for arm in ("good", "same")])
    for arm, p in zip(("good", "same"), adjusted, strict=True):
        for name in ("value", "low", "high"):
            assert scores[arm][name] == pytest.approx(getattr(found.values[arm]["accuracy"], name))
            expected = getattr(found.differences[arm]["accuracy"], name)
            assert scores[arm]["difference"][name] == pytest.approx(expected)
        assert scores[arm]["difference"]["holm"] == p
    tests = {arm: mcnemar(right["base"], right[arm]) for arm in ("good", "same")}
    adjusted = holm([test.p for test in tests.values()])
    assert own["mcnemar"] == {
        arm: {**test._asdict(), "holm": p} for (arm, test), p in zip(tests.items(), adjusted, strict=True)
    }
    assert scores["good"]["difference"]["holm"] < 0.05


def test_the_mean_of_parts_is_the_mean_of_their_metrics_and_the_pool_that_of_their_sums() -> None:
    fewer = QUESTIONS[:200]  # the second part is smaller
    summary = score(fewer, YesNo(), {"base": ARMS["base"][:200]}, resamples=200)
    first, second, pool, mean = (
        one["parsers"]["loose"]["metrics"]["accuracy_percent"]["base"] for one in summary["parts"]
    )
    assert mean["value"] == pytest.approx((first["value"] + second["value"]) / 2)
    assert pool["value"] == pytest.approx((160 * first["value"] + 40 * second["value"]) / 200)
    assert mean["low"] < mean["value"] < mean["high"]
    assert summary["parts"][3]["text"] is None
    assert summary["parts"][3]["parsers"]["loose"]["mcnemar"] is None


def test_one_part_is_scored_once() -> None:
    summary = score(SCENES, Captions(), {"base": answers(SCENES, lambda *_: "a cat")}, resamples=50)
    assert [one["kind"] for one in summary["parts"]] == ["part"]


def test_parsers_stand_side_by_side() -> None:
    talk = answers(QUESTIONS, lambda index, sample: "Yes, I think." if index % 4 else "no")
    summary = score(QUESTIONS, YesNo(), {"base": ARMS["base"], "talk": talk}, resamples=50)
    parsers = summary["parts"][0]["parsers"]
    assert list(parsers) == ["loose", "strict"]
    for parser, shares in (("loose", (75.0, 25.0, 0.0)), ("strict", (0.0, 25.0, 75.0))):
        parsed = parsers[parser]["parsed"]
        assert tuple(parsed[f"{word}_percent"]["talk"]["value"] for word in ("yes", "no", "unknown")) == shares
        assert parsed["yes_percent"]["talk"]["low"] <= parsed["yes_percent"]["talk"]["high"]
    assert parsers["strict"]["metrics"]["right_of_yes"]["talk"]["value"] is None  # never parsed
    assert parsers["strict"]["metrics"]["right_of_yes"]["talk"]["difference"]["p"] is None
    json.dumps(summary, allow_nan=False)


def test_only_samples_that_all_have_answered_count() -> None:
    some = {"base": ARMS["base"][:150], "good": [*ARMS["good"][10:], replace(ANSWER, id="elsewhere")]}
    summary = score(QUESTIONS, YesNo(), some, resamples=50)
    assert (summary["samples"], summary["paired"]) == (320, 140)
    assert summary["missing"] == {"base": 170, "good": 10}
    assert summary["unknown"] == {"base": 0, "good": 1}
    cut = {arm: parsed[10:150] for arm, parsed in ARMS.items() if arm != "same"}
    assert summary["parts"] == score(QUESTIONS[10:150], YesNo(), cut, resamples=50)["parts"]
    assert "170 of 320" in warned(summary, "base")
    assert "belong to no sample" in warned(summary, "good")


def test_the_order_of_answers_does_not_matter() -> None:
    turned = {arm: parsed[::-1] for arm, parsed in ARMS.items()}
    assert score(QUESTIONS, YesNo(), turned, resamples=50) == score(QUESTIONS, YesNo(), ARMS, resamples=50)


def test_of_two_answers_to_a_sample_the_first_counts() -> None:
    twice = {arm: [*parsed, *answers(QUESTIONS, lambda *_: "no")] for arm, parsed in ARMS.items()}
    assert score(QUESTIONS, YesNo(), twice, resamples=50) == score(QUESTIONS, YesNo(), ARMS, resamples=50)


def test_scoring_needs_no_torch() -> None:
    command = "import sys, regard.mllm.evaluation.score_tables; sys.exit('torch' in sys.modules)"
    paths = str(Path(regard.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": paths}
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", command], env=environment).returncode == 0


def test_answers_from_disk_are_scored_as_they_are(tmp_path: Path) -> None:
    for arm, parsed in ARMS.items():
        settings = Arm(benchmark="b", model="m", revision="1", intervention=arm, prompt="", decoding={}, code="1")
        for shard in range(2):
            with AnswerWriter(tmp_path, arm, settings, shard=shard, shards=2) as writer:
                for one in parsed[shard::2]:
                    writer.add(one)
    stored = {arm: read_answers(tmp_path, arm) for arm in ARMS}
    assert score(QUESTIONS, YesNo(), stored, resamples=50) == score(QUESTIONS, YesNo(), ARMS, resamples=50)


def test_another_arm_may_be_the_baseline() -> None:
    summary = score(QUESTIONS, YesNo(), ARMS, baseline="good", resamples=200)
    assert summary["arms"] == ["good", "base", "same"]
    row = summary["parts"][0]["parsers"]["loose"]["metrics"]["accuracy_percent"]
    assert row["good"]["difference"] is None
    assert row["base"]["difference"]["high"] < 0


def test_guard_rails_tell_what_the_texts_are_like() -> None:
    own = [
        replace(ANSWER, id="0", text="a cat and a cup", tokens=5),
        replace(ANSWER, id="1", text=" ", tokens=0),
        replace(ANSWER, id="2", text="cat cat cat cat cat", tokens=7, at_limit=True),
        replace(ANSWER, id="3", text="cat", tokens=4, activity=[{"heads": 0, "token_change": None}]),
    ]
    base = answers(SCENES[:4], lambda *_: "cat")
    text = score(SCENES[:4], Captions(), {"base": base, "fix": own}, resamples=20)["parts"][0]["text"]
    assert {name: cells["fix"]["value"] for name, cells in text.items()} == {
        "words": 11 / 4,
        "tokens": 4.0,
        "repetition_percent": 25.0,
        "empty_percent": 25.0,
        "at_limit_percent": 25.0,
        "changed_percent": 75.0,
        "active_percent": 25.0,
    }
    assert text["changed_percent"]["base"]["value"] is None
    assert text["active_percent"]["base"]["value"] is None
    assert text["words"]["fix"]["low"] <= 11 / 4 <= text["words"]["fix"]["high"]
    assert text["words"]["fix"]["difference"]["value"] == 7 / 4


@pytest.mark.parametrize(
    ("text", "share"),
    [("", 0), ("one two three", 0), ("a b c d", 0), ("a b c d a b c d", 1 / 5), ("A a a A a a", 2 / 3)],
)
def test_repetition_is_the_share_of_runs_of_four_words_that_were_there(text: str, share: float) -> None:
    found = score(SCENES, Captions(), {"base": answers(SCENES, lambda *_: text)}, resamples=5)
    assert found["parts"][0]["text"]["repetition_percent"]["base"]["value"] == pytest.approx(100 * share)


LONG = "there is a cat beside a cup and a dog lies under the bed"


@pytest.mark.parametrize(
    ("say", "more", "reason"),
    [
        (lambda index, sample: "a cat and a cup", {}, "5.0 words instead of 14.0"),
        (lambda index, sample: "a cat and a cup stand there " * 4, {}, "words instead of"),
        (lambda index, sample: "there is a cat beside a thing that is on some table here", {}, "recall_percent falls"),
        (lambda index, sample: "cat cup cat cup cat cup cat cup cat cup cat cup cat", {}, "is repetition"),
        (
            lambda index, sample: (
                "" if index % 4 == 0 else "there is one cat beside a cup and that is really all that I see here"
            ),
            {},
            "are empty",
        ),
        (
            lambda index, sample: "there is one cat beside a cup and that is all I see",
            {"at_limit": True},
            "token limit",
        ),
    ],
)
def test_fewer_inventions_with_another_text_or_lower_recall_are_doubted(
    say: Callable[[int, Sample], str], more: dict[str, Any], reason: str
) -> None:
    arms = {"base": answers(SCENES, lambda *_: LONG), "fix": answers(SCENES, say, **more)}
    warning = warned(score(SCENES, Captions(), arms, resamples=100), "fix")
    assert "lower chair_i_percent" in warning
    assert reason in warning


def test_fewer_inventions_in_the_same_kind_of_text_are_not_doubted() -> None:
    honest = "there is one cat beside a cup and that is all I see"
    arms = {"base": answers(SCENES, lambda *_: LONG), "fix": answers(SCENES, lambda *_: honest)}
    assert score(SCENES, Captions(), arms, resamples=100)["warnings"] == []


def test_more_inventions_with_shorter_text_are_no_gain_to_doubt() -> None:
    arms = {"base": answers(SCENES, lambda *_: "there is a cat and a cup"), "fix": answers(SCENES, lambda *_: "a dog")}
    assert "lower" not in warned(score(SCENES, Captions(), arms, resamples=100), "fix")


def test_a_gain_that_comes_with_another_yes_share_is_doubted() -> None:
    eager = answers(QUESTIONS, lambda index, sample: "no" if not sample.truth and index % 3 else "yes")
    careful = answers(QUESTIONS, lambda index, sample: "no" if not sample.truth and index % 10 else "yes")
    warning = warned(score(QUESTIONS, YesNo(), {"base": eager, "fix": careful}, resamples=100), "fix")
    assert "higher accuracy_percent, but 50.0 % of the answers are yes" in warning


def test_a_shift_is_told_with_what_d_prime_says_where_that_can_be_told() -> None:
    def shifted(no_every: int, yes_every: int) -> list[StoredAnswer]:
        return answers(
            POPE_LIKE,
            lambda index, one: "yes" if index // 2 % (yes_every if one.truth == "yes" else no_every) == 0 else "no",
        )

    arms = {"base": shifted(2, 1), "fix": shifted(5, 1), "both": shifted(5, 3)}
    for arm in arms.values():  # some yes is missed by all arms
        arm[0] = replace(arm[0], text="no")
    scored = score(POPE_LIKE, POPE(), arms, resamples=100)
    assert "has the same effect; d', which is invariant to such a shift" in warned(scored, "fix")
    arms = {"base": shifted(2, 1), "fix": shifted(10_000, 1)}
    arms["fix"] = [
        replace(one, text="yes" if asked.truth == "yes" else "no")
        for one, asked in zip(arms["fix"], POPE_LIKE, strict=True)
    ]
    assert warned(score(POPE_LIKE, POPE(), arms, resamples=100), "fix").endswith("the same effect")


def test_a_gain_at_the_same_yes_share_is_not_doubted() -> None:
    def wrong_every(step: int) -> Callable[[int, Sample], str]:
        return lambda index, sample: "yes" if (index // 2 % step == 0) != sample.truth else "no"

    arms = {"base": answers(QUESTIONS, wrong_every(3)), "fix": answers(QUESTIONS, wrong_every(8))}
    summary = score(QUESTIONS, YesNo(), arms, resamples=100)
    assert summary["parts"][0]["parsers"]["loose"]["metrics"]["accuracy_percent"]["fix"]["difference"]["low"] > 0
    assert summary["warnings"] == []


def test_an_arm_that_answers_word_for_word_like_the_baseline_is_named() -> None:
    idle = [replace(one, activity=[{"heads": 0, "token_change": 0.0}]) for one in ARMS["base"]]
    summary = score(QUESTIONS, YesNo(), {"base": ARMS["base"], "copy": ARMS["base"], "idle": idle}, resamples=50)
    assert "equal those of the baseline" in warned(summary, "copy")
    assert "were inactive" in warned(summary, "idle")
    difference = summary["parts"][0]["parsers"]["loose"]["metrics"]["accuracy_percent"]["copy"]["difference"]
    assert (difference["value"], difference["p"], difference["holm"]) == (0, 1, 1)


def test_few_images_are_named() -> None:
    summary = score(SCENES[:9], Captions(), {"base": answers(SCENES[:9], lambda *_: "cat")}, resamples=50)
    [warning] = summary["warnings"]
    assert warning["text"] == "9 images only; intervals are rough and tend to be too narrow"


def test_objects_that_are_not_there_are_told_with_what_is_beside_them() -> None:
    scenes = [replace(SCENES[0], truth=["cup"]), replace(SCENES[1], truth=["cat", "cup"]), replace(SCENES[2], truth=[])]
    parsed = ["a dog and a dog and a cat", "a dog by a bed", "a cup"]
    arms = {"base": answers(scenes, lambda index, _: parsed[index]), "fix": answers(scenes, lambda *_: "nothing")}
    found = score(scenes, Captions(), arms, resamples=20)["objects"]["words"]
    assert found["fix"] == []
    intervals = ("rate_percent", "low", "high")
    assert [{name: value for name, value in row.items() if name not in intervals} for row in found["base"]] == [
        {"object": "dog", "mentions": 3, "answers": 2, "cooccurring": {"cup": 2, "cat": 1}, "samples": ["0", "1"]},
        {"object": "bed", "mentions": 1, "answers": 1, "cooccurring": {"cat": 1, "cup": 1}, "samples": ["1"]},
        {"object": "cat", "mentions": 1, "answers": 1, "cooccurring": {"cup": 1}, "samples": ["0"]},
        {"object": "cup", "mentions": 1, "answers": 1, "cooccurring": {}, "samples": ["2"]},
    ]
    for row in found["base"]:
        expected = stats.binomtest(row["answers"], 3).proportion_ci(method="wilson")
        assert (row["low"], row["high"]) == pytest.approx((100 * expected.low, 100 * expected.high))
        assert row["rate_percent"] == pytest.approx(100 * row["answers"] / 3)


def test_what_interventions_did_is_summed_up() -> None:
    did = {
        "intervention": "vhr",
        "rows": 2,
        "heads": 4,
        "moved": 0.5,
        "to_image": 0.25,
        "change": 1.0,
        "token_change": 0.0,
    }
    idle = {**did, "heads": 0, "moved": 0.0, "change": 3.0}
    ruled_out = {**idle, "token_change": None}
    notes = [[did], [idle], [ruled_out], []]
    own = [replace(ANSWER, id=str(index), text="cat", activity=note) for index, note in enumerate(notes)]
    arms = {"base": answers(SCENES[:4], lambda *_: "cat"), "fix": own}
    found = score(SCENES[:4], Captions(), arms, resamples=5)["activity"]
    assert found["base"] == []
    counts = {"intervention": "vhr", "answers": 3, "active": 2, "rows": 2.0, "heads": 4 / 3, "to_image": 0.25}
    assert found["fix"] == [{**counts, "moved": pytest.approx(1 / 6), "change": 3.0, "token_change": None}]


def test_right_or_wrong_is_no_question_of_captions() -> None:
    arms = {"base": answers(SCENES, lambda *_: "cat"), "fix": answers(SCENES, lambda *_: "dog")}
    parser = score(SCENES, Captions(), arms, resamples=20)["parts"][0]["parsers"]["words"]
    assert parser["mcnemar"] is None
    assert parser["parsed"] is None


@pytest.mark.parametrize(
    ("samples", "arms", "baseline", "message"),
    [
        (QUESTIONS, {}, None, "not among the arms"),
        (QUESTIONS, ARMS, "bast", "'bast' is not among the arms: base, good, same"),
        (QUESTIONS, {"a": ARMS["base"][:3], "b": ARMS["base"][3:]}, None, "answered: a 3, b 317, of 320"),
        ([*QUESTIONS, QUESTIONS[3]], ARMS, None, "'random/3' of yesno occurs twice"),
    ],
)
def test_what_cannot_be_compared_is_named(
    samples: list[Sample], arms: dict[str, list[StoredAnswer]], baseline: str | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        score(samples, YesNo(), arms, baseline=baseline, resamples=10)


def test_a_benchmark_that_counts_unevenly_is_named() -> None:
    class Uneven(YesNo):
        def count(self, sample: Sample, answer: str) -> Mapping[str, Counted]:
            return {"only": Counted(numbers={"right": 1.0} if answer == "yes" else {})}

    parsed = answers(QUESTIONS, lambda index, _: "no" if index == 5 else "yes")
    with pytest.raises(ValueError, match="does not count 'right' for every answer of 'base'"):
        score(QUESTIONS, Uneven(), {"base": parsed}, resamples=10)


SCORER = """
import sys, tracemalloc
from pathlib import Path
from regard.mllm.evaluation.answer_files import read_answers
from regard.mllm.benchmarks.pope import POPE
from regard.mllm.evaluation.sample_file import SampleFile
from regard.mllm.evaluation.sample_file import write_samples
from regard.mllm.evaluation.score_tables import score
folder = Path(sys.argv[1])
samples = SampleFile(folder / "samples.jsonl")
answers = {name: read_answers(folder, name) for name in ("base", "fix")}
tracemalloc.start()
found = score(samples, POPE(), answers, resamples=5)
print(found["paired"], tracemalloc.get_traced_memory()[1])
"""


def test_memory_does_not_grow_with_the_answers(tmp_path: Path) -> None:
    count, long = 1000, f"Yes. {'z' * 20_000}"
    samples = [Sample(id=str(row), image=f"{row % 50}.jpg", question="Is it?", truth="yes") for row in range(count)]
    write_samples(tmp_path / "samples.jsonl", "pope", {}, samples)
    for name in ("base", "fix"):
        settings = Arm(benchmark="b", model="m", revision="1", intervention=name, prompt="", decoding={}, code="1")
        with AnswerWriter(tmp_path, name, settings) as writer:
            for sample in samples:
                writer.add(replace(ANSWER, id=sample.id, text=long))
    command = [sys.executable, "-W", "ignore", "-c", SCORER, str(tmp_path)]
    paths = str(Path(regard.__file__).parents[1])
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, check=True, text=True)
    paired, peak = map(int, done.stdout.split())
    assert paired == count
    assert peak < 5e6 < (tmp_path / "base.jsonl").stat().st_size / 2
