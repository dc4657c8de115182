"""`regard benchmark blocks`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from jobs import run

from regard.tools.benchmark.blocks import _contestants
from regard.tools.settings import BenchmarkBlocksSettings


def test_benchmark_compares_in_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--blocks", "[ela]", "--sides", "[16]", "--batch", "2", "--repeats", "1", "--passes", "[forward]"]
    assert run("benchmark", "blocks", *words, "--out", tmp_path / "figures.json") == 0
    assert "plain" in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert set(row["ms"]) == {"ours", "plain", "softmax"}
    assert row["mb"]["ours"] <= 0.55 * row["mb"]["plain"]


def test_the_two_contestants_compute_the_same_memory(tmp_path: Path) -> None:
    ours, plain = _contestants("vig_memory", BenchmarkBlocksSettings())
    x = torch.randn(2, 5, 7, 128, generator=torch.Generator().manual_seed(0))
    assert isinstance(plain, torch.nn.Module)
    torch.testing.assert_close(ours(x), plain(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1), rtol=1e-4, atol=1e-5)


def test_benchmark_takes_the_options_of_a_block_and_writes_markdown(tmp_path: Path) -> None:
    words = ["--blocks", "[halonet,vig]", "--sides", "[6]", "--dim", "24", "--batch", "1", "--repeats", "1"]
    options = "{halonet: {block_size: 2, num_heads: 6}, vig: {gate_rank: 4}}"
    files = ["--out", tmp_path / "figures.json", "--markdown", tmp_path / "table.md"]
    words += ["--passes", "[forward]", "--baselines", "[plain]", "--options", options]
    assert run("benchmark", "blocks", *words, *files) == 0
    halonet, vig = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert set(halonet["ms"]) == {"ours", "plain"}
    assert halonet["ns_per_token"]["ours"] == pytest.approx(1e6 * halonet["ms"]["ours"] / 36)
    assert vig["left_out"]["plain"] == "no gate_rank in the plain formulation"
    table = (tmp_path / "table.md").read_text().splitlines()
    assert table[2].startswith("| block | map | pass | ms |")
    assert table[4].startswith("| halonet | 6x6 nhwc | forward |")
