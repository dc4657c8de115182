"""The model `regard` of lmms-eval: with lmms-eval itself where it is installed, otherwise with a stand-in."""

from __future__ import annotations

import importlib
import json
import logging
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lmms_eval_stand_in
import lvlm_folder
import numpy as np
import pytest
from PIL import Image

from regard.mllm import LVLM, VHR
from regard.mllm.lmms_requests import Options

DOG, ANY, RED = "is there a dog in the image ?", "describe the image .", "is it red ?"
STRONG = VHR(alpha=3.0, layers="all")
IDLE = VHR(alpha=1.0)
NAME = "regard.mllm.lmms_eval"


def image(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lvlm_folder.save(tmp_path_factory.mktemp("lvlm"))


@pytest.fixture(scope="module")
def lvlm(folder: Path) -> LVLM:
    return LVLM.load(folder, device="cpu")


@pytest.fixture(scope="module")
def adapter() -> Iterator[Any]:
    with lmms_eval_stand_in.importable():
        sys.modules.pop(NAME, None)
        yield importlib.import_module(NAME)
    sys.modules.pop(NAME, None)


@pytest.fixture
def model(adapter: Any, lvlm: LVLM) -> Callable[..., Any]:
    """A model whose task has four documents, each with an image and a question."""

    def build(**options: Any) -> Any:
        built = adapter.Regard(lvlm, **{"batch_size": 2, **options})
        questions = (DOG, ANY, RED, f"{DOG} {ANY}")
        built.task_dict["task"] = {"test": [{"image": image(n), "text": text} for n, text in enumerate(questions)]}
        return built

    return build


def visuals(document: dict[str, Any]) -> list[Any]:
    return [document["image"]]


def request(kind: str, *arguments: Any) -> Any:
    from lmms_eval.api.instance import Instance

    metadata = {"task": "task", "doc_id": arguments[-3], "repeats": 1}
    return Instance(request_type=kind, arguments=arguments, idx=0, metadata=metadata)


def prompt_batch(model: Any, options: dict[str, Any], show: Any = visuals, text: str = "") -> list[Any]:
    documents = model.task_dict["task"]["test"]
    return [
        request("generate_until", text or one["text"], options, show, index, "task", "test")
        for index, one in enumerate(documents)
    ]


def scored(model: Any, answers: tuple[str, ...]) -> list[Any]:
    return [
        request("loglikelihood", one["text"], f" {answer}", visuals, index, "task", "test")
        for index, one in enumerate(model.task_dict["task"]["test"])
        for answer in answers
    ]


def outputs(found: list[Any]) -> list[Any]:
    from lmms_eval.api.instance import unwrap_generation_output

    return [unwrap_generation_output(one)[0] for one in found]


@pytest.mark.parametrize("interventions", [[], [STRONG]])
def test_answers_are_those_of_the_model_in_the_order_of_the_requests(
    interventions: list[Any], model: Callable[..., Any], lvlm: LVLM
) -> None:
    regard = model(fix=interventions)
    short, long = {"max_new_tokens": 2}, {"max_new_tokens": 5, "num_beams": 2, "temperature": 0}
    requests = [
        one for pair in zip(prompt_batch(regard, short), prompt_batch(regard, long), strict=True) for one in pair
    ]
    found = outputs(regard.generate_until(requests))
    for position, document in enumerate(regard.task_dict["task"]["test"]):
        for index, options in enumerate(({"max_new_tokens": 2}, {"max_new_tokens": 5, "beams": 2})):
            answer = lvlm.answer([document["image"]], [document["text"]], interventions=interventions, **options)[0]
            assert found[2 * position + index] == answer.text
    assert requests[1].args[1] == {"max_new_tokens": 5, "num_beams": 2, "temperature": 0}
    regard.clean()


def test_an_answer_ends_before_the_texts_that_end_it_but_not_at_blank_lines(model: Callable[..., Any]) -> None:
    regard = model()
    whole = outputs(regard.generate_until(prompt_batch(regard, {"max_new_tokens": 6, "until": ["\n\n"]})))
    word = whole[0].split()[2]
    cut = outputs(regard.generate_until(prompt_batch(regard, {"max_new_tokens": 6, "until": word})))
    assert cut == [text.split(word)[0].rstrip() for text in whole]
    assert cut[0] != whole[0]
    assert Options.of({"until": ["\n\n", "\n"]})[0].cut("a b\n\nc") == "a b"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (1024, 0.0, 1.0, 1)),
        ({"max_new_tokens": 16, "temperature": 0, "top_p": 0, "num_beams": 3}, (16, 0.0, 1.0, 3)),
        ({"temperature": 0.5, "top_p": 0.9}, (1024, 0.5, 0.9, 1)),
        ({"temperature": 0.5, "do_sample": False}, (1024, 0.0, 1.0, 1)),
        ({"do_sample": True}, (1024, 1.0, 1.0, 1)),
        ({"do_sample": True, "temperature": 0}, (1024, 0.0, 1.0, 1)),
        ({"temperature": None, "top_p": None, "image_aspect_ratio": "original"}, (1024, 0.0, 1.0, 1)),
    ],
)
def test_options_of_tasks_mean_what_they_say(given: dict[str, Any], expected: tuple[Any, ...]) -> None:
    options, ignored = Options.of(given)
    assert (options[:4], ignored) == (expected, [])


def test_an_option_that_is_not_honoured_is_named_once(
    model: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    regard = model()
    regard.generate_until(prompt_batch(regard, {"max_new_tokens": 1, "repetition_penalty": 1.5}))
    assert [record.message for record in caplog.records] == [
        "the task's option repetition_penalty=1.5 is ignored by the model regard"
    ]


def test_draws_are_repeatable_and_differ_between_batches(model: Callable[..., Any]) -> None:
    options = {"max_new_tokens": 6, "temperature": 2.0}

    def draw(**given: Any) -> list[str]:
        regard = model(**given)
        requests = prompt_batch(regard, options)
        return outputs(regard.generate_until([requests[0]] * 6))

    assert draw() == draw() != draw(seed=1)
    assert len({*draw(batch_size=1)}) > 1


def test_several_images_stand_where_the_question_has_them(
    model: Callable[..., Any], lvlm: LVLM, caplog: pytest.LogCaptureFixture
) -> None:
    regard, two = model(), [image(7), image(8)]
    text = "is <image> red and <image> blue ?"
    found = outputs(
        regard.generate_until(prompt_batch(regard, {"max_new_tokens": 4}, lambda _: [two[:1], two[1:]], text))
    )
    assert found == [lvlm.answer([two], [text], max_new_tokens=4)[0].text] * 4
    assert not caplog.records
    found = outputs(regard.generate_until(prompt_batch(regard, {"max_new_tokens": 4}, visuals, text)))
    plain = text.replace("<image>", "")
    assert found == [lvlm.answer([image(n)], [plain], max_new_tokens=4)[0].text for n in range(4)]
    assert ["images come first" in record.message for record in caplog.records] == [True]


def test_a_question_needs_no_image(model: Callable[..., Any], lvlm: LVLM) -> None:
    regard = model()
    found = outputs(regard.generate_until(prompt_batch(regard, {"max_new_tokens": 3}, lambda _: None)))
    assert found[0] == lvlm.answer(None, [DOG], max_new_tokens=3)[0].text


@pytest.mark.parametrize("shown", ["film.mp4", {"array": [0.0], "sampling_rate": 16000}])
def test_video_and_sound_are_refused(shown: Any, model: Callable[..., Any]) -> None:
    regard = model()
    with pytest.raises(ValueError, match="supports images only, neither video nor sound"):
        regard.generate_until(prompt_batch(regard, {}, lambda _: [shown]))


@pytest.mark.parametrize("interventions", [[], [STRONG]])
def test_losses_are_means_over_tokens_and_reach_the_task_as_pairs(
    interventions: list[Any], model: Callable[..., Any], lvlm: LVLM
) -> None:
    regard, answers = model(fix=interventions), ("yes", "no", "red dog and white")
    pairs = outputs(regard.loglikelihood(scored(regard, answers)))
    for index, document in enumerate(regard.task_dict["task"]["test"]):
        of = {"images": [document["image"]], "questions": [document["text"]], "interventions": interventions}
        scores = lvlm.score(answers=answers, **of)[0].tolist()
        losses, likeliest = zip(*pairs[3 * index : 3 * index + 3], strict=True)
        assert losses == pytest.approx([-scores[0], -scores[1], -scores[2] / 4], abs=1e-4)
        said = lvlm.answer(max_new_tokens=4, **of)[0].text
        assert likeliest == tuple(said.split()[: len(one.split())] == one.split() for one in answers)
    regard.clean()


def test_what_would_be_generated_is_likeliest(model: Callable[..., Any]) -> None:
    regard = model()
    said = outputs(regard.generate_until(prompt_batch(regard, {"max_new_tokens": 3})))[0]
    pairs = outputs(regard.loglikelihood(scored(regard, (said, "dog dog dog"))))
    assert pairs[0][1] is True
    assert pairs[0][0] < pairs[1][0]
    assert pairs[1][1] is False


def test_an_answer_without_a_question_is_refused(model: Callable[..., Any]) -> None:
    regard = model()
    lone = scored(regard, ("yes",))[0]
    lone.arguments = ("", "yes")
    with pytest.raises(ValueError, match="acc_mutual_info"):
        regard.loglikelihood([lone])


def test_rounds_go_on_until_the_task_ends_them(model: Callable[..., Any], lvlm: LVLM) -> None:
    regard, seen = model(), []

    def ask(document: Any, previous_output: list[str], round_idx: int, previous_round_info: Any) -> tuple[Any, ...]:
        seen.append((document["text"], list(previous_output), round_idx, previous_round_info))
        ended = round_idx == (2 if document["text"] == DOG else 1)
        return [image(9)], RED, ended, previous_output, f"note {round_idx}"

    options = {"max_new_tokens": 3}
    requests = [
        request("generate_until_multi_round", one["text"], options, visuals, ask, index, "task", "test")
        for index, one in enumerate(regard.task_dict["task"]["test"][:2])
    ]
    found = regard.generate_until_multi_round(requests)
    first = [lvlm.answer([image(n)], [text], max_new_tokens=3)[0].text for n, text in enumerate((DOG, ANY))]
    second = lvlm.answer([image(9)], [RED], max_new_tokens=3)[0].text
    assert found == [[first[0], second], [first[1]]]
    assert seen[-1] == (DOG, [first[0], second], 2, "note 1")


def test_answers_are_handed_to_the_cache(model: Callable[..., Any]) -> None:
    regard, kept = model(), []

    class Hook:
        def add_partial(self, *given: Any) -> None:
            kept.append(given)

    regard.cache_hook = Hook()
    options = {"max_new_tokens": 2}
    found = outputs(regard.generate_until(prompt_batch(regard, options)))
    assert sorted(kept, key=repr) == sorted(
        [
            ("generate_until", (text, options), said)
            for text, said in zip((DOG, ANY, RED, f"{DOG} {ANY}"), found, strict=True)
        ],
        key=repr,
    )


@pytest.mark.parametrize("kind", ["generate_until", "loglikelihood"])
def test_an_intervention_that_does_nothing_is_an_error_once_all_is_answered(
    kind: str, model: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    for allowed in (False, True):
        regard = model(fix=[IDLE], allow_inactive=allowed)
        requests = scored(regard, ("yes",)) if kind == "loglikelihood" else prompt_batch(regard, {"max_new_tokens": 1})
        caplog.clear()
        getattr(regard, kind)(requests)
        assert [record.message for record in caplog.records] == ["vhr changed nothing for the first 2 questions"]
        if allowed:
            regard.clean()
        else:
            with pytest.raises(RuntimeError, match="vhr changed nothing for any of 4 questions"):
                regard.clean()
        assert caplog.records[-1].levelno == logging.ERROR


def test_a_model_that_was_given_can_be_used_again_and_one_that_was_loaded_is_let_go(
    adapter: Any, model: Callable[..., Any], folder: Path
) -> None:
    regard = model()
    regard.clean()
    assert regard.generate_until(prompt_batch(regard, {"max_new_tokens": 1}))
    loaded = adapter.Regard(str(folder), '"vhr:alpha=1.5,layers=1:,pai"', batch_size="2", device="cpu")
    assert [intervention.name for intervention in loaded.interventions] == ["vhr", "pai"]
    assert loaded.interventions[0] == VHR(alpha=1.5, layers="1:")
    assert str(loaded.device) == "cpu"
    loaded.clean()
    assert not hasattr(loaded, "lvlm")


def test_mistakes_in_the_arguments_are_named(adapter: Any, lvlm: LVLM) -> None:
    with pytest.raises(ValueError, match=r"no argument 'layers'; options with commas are quoted"):
        adapter.Regard(lvlm, fix="vhr:alpha=1.5", layers=2)
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1; got 'auto'"):
        adapter.Regard(lvlm, batch_size="auto")
    with pytest.raises(ValueError, match="no intervention is called 'vrh'"):
        adapter.Regard(lvlm, fix="vrh")


def test_lmms_eval_finds_the_model_by_an_entry_point(adapter: Any) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    module, _, function = project["entry-points"]["lmms_eval.models"]["regard"].partition(":")
    manifest = getattr(importlib.import_module(module), function)()
    assert manifest.model_id == "regard"
    module, _, name = manifest.simple_class_path.rpartition(".")
    from lmms_eval.api.model import lmms

    assert issubclass(getattr(importlib.import_module(module), name), lmms)


TASK = """
dataset_path: json
dataset_kwargs: {data_files: {test: QUESTIONS}}
task: regard_NAME
test_split: test
output_type: KIND
doc_to_visual: !function shown.visual
doc_to_text: question
doc_to_choice: ["yes", "no"]
doc_to_target: 0
metric_list: [{metric: METRIC, aggregation: mean, higher_is_better: true}]
metadata: [{version: 0.0}]
"""


@pytest.mark.skipif(
    not lmms_eval_stand_in.INSTALLED, reason="lmms-eval needs an environment of its own: make test-lmms"
)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("interventions", [[], [STRONG]])
def test_tasks_of_lmms_eval_run(interventions: list[Any], adapter: Any, lvlm: LVLM, tmp_path: Path) -> None:
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    for n in range(3):
        image(n).save(tmp_path / f"{n}.png")
    rows = [json.dumps({"image": str(tmp_path / f"{n}.png"), "question": DOG}) for n in range(3)]
    (tmp_path / "questions.jsonl").write_text("\n".join(rows))
    (tmp_path / "shown.py").write_text("def visual(document):\n    return [document['image']]\n")
    for name, kind, metric in (("said", "generate_until", "exact_match"), ("chosen", "multiple_choice", "acc")):
        task = TASK.replace("QUESTIONS", str(tmp_path / "questions.jsonl")).replace("NAME", name)
        (tmp_path / f"{name}.yaml").write_text(task.replace("KIND", kind).replace("METRIC", metric))
    regard = adapter.Regard(lvlm, fix=interventions, batch_size=2)
    found = simple_evaluate(
        regard,
        tasks=["regard_said", "regard_chosen"],
        task_manager=TaskManager(include_path=str(tmp_path)),
        gen_kwargs="max_new_tokens=2",
        log_samples=True,
    )
    images = [image(n) for n in range(3)]
    said = lvlm.answer(images, [DOG] * 3, interventions=interventions, max_new_tokens=2)
    assert [one["filtered_resps"][0] for one in found["samples"]["regard_said"]] == [one.text for one in said]
    scores = lvlm.score(images, [DOG] * 3, ["yes", "no"], interventions=interventions)
    expected = (scores[:, 0] > scores[:, 1]).float().mean().item()
    assert found["results"]["regard_chosen"]["acc,none"] == pytest.approx(expected)


def test_without_lmms_eval_the_model_says_what_to_install_and_nothing_else_misses_it() -> None:
    check = (
        "import sys; import regard.mllm; assert 'lmms_eval' not in sys.modules; sys.modules['lmms_eval'] = None\n"
        f"import {NAME} as adapter\n"
        "try: adapter.Regard()\n"
        "except ImportError as error: print(error)"
    )
    out = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout
    assert out.strip() == 'lmms-eval is not installed; pip install "regard[lmms]"'
