"""What depends on what."""

from __future__ import annotations

from regard.mllm.benchmarks import Sample
from regard.mllm.benchmarks.clusters import clusters


def ask(key: str, image: str = "", **groups: str) -> Sample:
    return Sample(id=key, image=image, question="?", groups=groups)


def test_a_cluster_joins_images_through_groups() -> None:
    samples = [ask("a", "1"), ask("b", "2"), ask("c", "3", pair="x"), ask("d", "2", pair="x"), ask("e"), ask("f")]
    assert clusters(samples) == [0, 1, 1, 1, 2, 3]
