"""Groups of questions, and what depends on what."""

from __future__ import annotations

import pytest

from regard.mllm.benchmarks import Counted, Sample
from regard.mllm.benchmarks.groups import clusters, with_groups


def ask(key: str, image: str = "", **groups: str) -> Sample:
    return Sample(id=key, image=image, question="?", groups=groups)


def test_a_group_is_right_when_all_of_it_is() -> None:
    samples = [ask("a", figure="1", pair="x"), ask("b", figure="1"), ask("c", figure="2", pair="x")]
    counted = [Counted(numbers={"n": 1.0}, correct=correct) for correct in (True, False, True)]
    grouped = with_groups(samples, counted)
    sums = {name: sum(one.numbers[name] for one in grouped) for name in grouped[0].numbers}
    assert sums == {"n": 3, "figure_groups": 2, "figure_groups_right": 1, "pair_groups": 1, "pair_groups_right": 1}
    assert len({tuple(one.numbers) for one in grouped}) == 1


def test_questions_without_groups_stay_as_they_are() -> None:
    counted = [Counted(numbers={"n": 1.0})]
    assert with_groups([ask("a")], counted) == counted


def test_groups_of_answers_that_are_neither_right_nor_wrong_are_an_error() -> None:
    with pytest.raises(ValueError, match="neither right nor wrong"):
        with_groups([ask("a", figure="1")], [Counted(numbers={})])
    with pytest.raises(ValueError, match="got 0 counted answers for 1 questions"):
        with_groups([ask("a")], [])


def test_a_cluster_joins_images_through_groups() -> None:
    samples = [ask("a", "1"), ask("b", "2"), ask("c", "3", pair="x"), ask("d", "2", pair="x"), ask("e"), ask("f")]
    assert clusters(samples) == [0, 1, 1, 1, 2, 3]
