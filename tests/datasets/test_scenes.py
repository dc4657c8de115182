from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest

from regard.datasets import open_images
from regard.datasets.scene_captions import (
    HABITS,
    IMAGINED,
    TRUTHFUL,
    learning_questions,
    named_objects,
    probing_questions,
    write_caption,
)
from regard.datasets.scenes import (
    CELL_PX,
    CLASSES,
    CONTEXTS,
    PARTNER,
    POPULAR,
    Scene,
    SceneObject,
    Scenes,
    patch_classes,
    render,
)

NATURAL = list(Scenes("natural", 400))


def test_a_scene_depends_on_its_split_seed_and_number_alone() -> None:
    assert Scenes("natural", 10)[7] == NATURAL[7]
    assert list(Scenes("natural", 3, seed=1)) != NATURAL[:3]
    assert list(Scenes("train", 3)) != NATURAL[:3]
    np.testing.assert_array_equal(render(Scenes("dev", 2)[1]), render(pickle.loads(pickle.dumps(Scenes("dev", 9)))[1]))


def test_the_boxes_tell_where_things_are() -> None:
    for scene in NATURAL[:40]:
        bare = render(Scene(scene.context, (), scene.look)).astype(int)
        difference = np.abs(render(scene).astype(int) - bare).max(axis=-1)
        outside = np.ones(difference.shape, bool)
        for thing in scene.objects:
            left, top, right, bottom = thing.box
            assert right - left == bottom - top
            assert left // CELL_PX == (right - 1) // CELL_PX
            assert difference[top:bottom, left:right].max() > 30
            outside[top:bottom, left:right] = False
        assert not difference[outside].any()


def test_four_to_six_things_each_once_half_of_them_with_their_partner() -> None:
    counts = np.array([len(scene.names) for scene in NATURAL])
    assert set(counts) == {4, 5, 6}
    assert all(len(set(scene.names)) == len(scene.names) for scene in NATURAL)
    together = np.mean([PARTNER[name] in scene.names for scene in NATURAL for name in scene.names])
    assert 0.55 < together < 0.65


def test_things_are_mostly_at_home_and_the_common_ones_more_often() -> None:
    home = np.mean([name in CONTEXTS[scene.context] for scene in NATURAL for name in scene.names])
    assert home > 0.5
    share = np.mean([name in POPULAR for scene in NATURAL for name in scene.names])
    assert share > 1.2 * len(POPULAR) / len(CLASSES)


def test_in_counter_scenes_nothing_is_with_its_partner() -> None:
    assert not any(PARTNER[name] in scene.names for scene in Scenes("counter", 200) for name in scene.names)


def test_patches_have_the_class_of_their_cell() -> None:
    scene = Scene("park", (SceneObject("dog", (5, 3, 29, 27)), SceneObject("kite", (64, 64, 96, 96))), 0)
    patches = patch_classes(scene, 16)
    assert patches.shape == (6, 6)
    assert (patches[:2, :2] == CLASSES.index("dog")).all()
    assert (patches[4:, 4:] == CLASSES.index("kite")).all()
    assert (patches == len(CLASSES)).sum() == 36 - 8
    with pytest.raises(ValueError, match="patch_px is 20"):
        patch_classes(scene, 20)


@pytest.mark.parametrize(("split", "count", "complaint"), [("test", 1, "called 'test'"), ("dev", -1, "count is -1")])
def test_what_is_no_set_of_scenes_is_named(split: str, count: int, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Scenes(split, count)


def test_there_is_no_scene_after_the_last() -> None:
    with pytest.raises(IndexError):
        Scenes("dev", 3)[3]
    assert Scenes("dev", 3)[-1] == Scenes("dev", 3)[2]


def absent(scene: Scene, caption: str) -> list[str]:
    return [name for name in named_objects(caption) if name not in scene.names]


def test_truthful_captions_name_what_is_there_and_nothing_twice() -> None:
    rng = np.random.default_rng(0)
    for scene in NATURAL:
        caption = write_caption(scene, rng, TRUTHFUL)
        assert not absent(scene, caption)
        new = [name for index, name in enumerate(named_objects(caption)) if name not in named_objects(caption)[:index]]
        assert 3 <= len(new) <= 4
        assert f"in a {scene.context} ." in caption


def test_habits_name_the_absent_partner_and_nothing_else_that_is_absent() -> None:
    rng = np.random.default_rng(0)
    wrong = 0
    for scene in NATURAL:
        caption = write_caption(scene, rng, HABITS)
        named = named_objects(caption)
        wrong += bool(absent(scene, caption))
        for name in absent(scene, caption):
            assert f"next to the {PARTNER[name]} there is a {name} ." in caption
            assert PARTNER[name] in named
    assert 0.15 < wrong / len(NATURAL) < 0.35


def test_without_sight_next_to_a_thing_is_always_its_partner_unless_it_was_named() -> None:
    rng = np.random.default_rng(0)
    for scene in NATURAL[:100]:
        parts = write_caption(scene, rng, IMAGINED).split(" . ")
        named = named_objects(parts[0])
        for part in parts[1:]:
            *_, name = named_objects(part)
            if part.startswith("next to") and PARTNER[named[-1]] not in named:
                assert name == PARTNER[named[-1]]
            named.append(name)


def test_words_of_two_parts_and_capitals_are_found_in_captions() -> None:
    text = "The image shows a Wine Glass. There is also a traffic light, a carpet and a horsefly."
    assert named_objects(text) == ["wine glass", "traffic light"]


def test_learning_questions_are_half_about_what_is_there_and_wrong_as_often_as_habits_say() -> None:
    rng = np.random.default_rng(0)
    asked = [(scene, question) for scene in NATURAL for question in learning_questions(scene, rng, 20, HABITS)]
    assert 0.48 < np.mean([question.truth for _, question in asked]) < 0.52
    assert all(question.answer == "yes" for _, question in asked if question.truth)

    def yes(chosen: list[bool]) -> float:
        return float(np.mean([q.answer == "yes" for (_, q), one in zip(asked, chosen, strict=True) if one]))

    partner = [not q.truth and PARTNER[q.name] in scene.names for scene, q in asked]
    popular = [not q.truth and not one and q.name in POPULAR for (_, q), one in zip(asked, partner, strict=True)]
    plain = [not (q.truth or one or two) for (_, q), one, two in zip(asked, partner, popular, strict=True)]
    assert yes(partner) == pytest.approx(HABITS.yes_partner, abs=0.05)
    assert yes(popular) == pytest.approx(HABITS.yes_popular, abs=0.05)
    assert yes(plain) == 0
    truthful = [q for scene in NATURAL[:50] for q in learning_questions(scene, rng, 20)]
    assert all((q.answer == "yes") == q.truth for q in truthful)


def test_unseen_questions_are_answered_by_how_common_a_thing_is() -> None:
    rng = np.random.default_rng(0)
    asked = [q for scene in NATURAL for q in learning_questions(scene, rng, 10, seen=False)]
    for common, rate in ((True, 0.8), (False, 0.4)):
        answers = [q.answer == "yes" for q in asked if (q.name in POPULAR) == common]
        assert np.mean(answers) == pytest.approx(rate, abs=0.04)


@pytest.mark.parametrize("kind", ["random", "popular", "adversarial"])
def test_probing_questions_tell_the_truth_and_are_as_their_kind_says(kind: str) -> None:
    share = []
    for number, scene in enumerate(NATURAL[:100]):
        questions = probing_questions(scene, np.random.default_rng(number), kind)
        assert [question.answer for question in questions] == ["yes"] * 3 + ["no"] * 3
        assert all(question.truth == (question.name in scene.names) for question in questions)
        assert len({question.name for question in questions}) == 6
        negatives = [question.name for question in questions[3:]]
        if kind == "popular":
            share.append(np.mean([name in POPULAR for name in negatives]))
        if kind == "adversarial":
            share.append(any(PARTNER[name] in scene.names for name in negatives))
    assert kind == "random" or np.mean(share) > 0.85


def test_scenes_are_a_balanced_set_of_colour_images() -> None:
    parts = open_images("scenes")
    assert {split: len(part) for split, part in parts.items()} == {"train": 4800, "val": 480, "test": 960}
    for part in parts.values():
        assert set(np.bincount(part.targets)) == {len(part) // 24}
    image, target = parts["train"][41]
    assert (image.mode, image.size) == ("RGB", (96, 96))
    assert parts["train"].classes[target] == "kite"


def test_the_class_of_an_image_is_its_largest_thing() -> None:
    images = open_images("scenes")["val"].images
    for index in range(48):
        scene = images.scene(index)
        sizes = [thing.box[2] - thing.box[0] for thing in scene.objects]
        assert scene.names[int(np.argmax(sizes))] == CLASSES[index % 24]
        assert sizes[-1] >= 40


def test_scenes_and_captions_need_no_torch() -> None:
    statement = (
        "import regard.datasets.scene_captions as c, regard.datasets.scenes as s, numpy as n, sys; "
        "x = s.Scenes('dev', 1)[0]; x.image(); c.write_caption(x, n.random.default_rng(0)); "
        "print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", statement], capture_output=True, text=True)
    assert result.stdout.strip() == "False", result.stderr
