"""`regard benchmark hosts`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jobs import run


def test_benchmark_measures_whole_models_beside_the_host(tmp_path: Path) -> None:
    host = {"depth": 1, "embed_dim": 32, "num_heads": 2, "class_token": False, "global_pool": "avg", "patch_size": 8}
    words = ["--hosts", "[vit_tiny_patch16_224]", "--host_options", json.dumps({"vit_tiny_patch16_224": host})]
    small = ["--image_size", "32", "--batch", "2", "--repeats", "1", "--out", tmp_path / "figures.json"]
    words += ["--blocks", "[ela,halonet]", "--options", "{halonet: {block_size: 2}}"]
    assert run("benchmark", "hosts", *words, *small) == 0
    rows = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert [row["block"] for row in rows] == [None, "ela", "halonet"]
    for row in rows:
        assert set(row["ms_per_image"]) == set(row["mb"]) == {"forward", "training"}
        assert row["parameters"] > 0
    assert rows[0]["ratio"]["forward"] == [1, 1, 1]
    patches, width = 16, 32
    linear = patches * width * (8 * 8 * 3 + 12 * width) + 1000 * width
    assert rows[0]["multiply_adds"] == linear + 2 * patches * patches * width


def test_benchmark_compares_networks_with_a_base(tmp_path: Path) -> None:
    tiny = {"depth": 2, "embed_dim": 32, "num_heads": 2}
    drop = tiny | {"token_mode": "clean", "token_keep_rates": [0.5, 0.5]}
    names = "deit_tiny_patch16_224", "sparsifiner_deit_tiny_patch16_224"
    options = json.dumps(dict(zip(names, (tiny, drop), strict=True)))
    words = ["--hosts", f"[{names[1]}]", "--base", names[0], "--host_options", options, "--image_size", "64"]
    small = ["--batch", "1", "--repeats", "1", "--passes", "[forward]", "--out", tmp_path / "figures.json"]
    assert run("benchmark", "hosts", *words, *small) == 0
    rows = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert [row["host"] for row in rows] == list(names)


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ("blocks --blocks [vam]", "did you mean 'van'?"),
        ("blocks --device cuda:7", "CUDA"),
        ("blocks --options.van.shortcat false --blocks [van]", "did you mean 'shortcut'?"),
        ("hosts --hosts [swin_tiny_patch4_window7_224] --blocks [van]", "does not accept another attention"),
    ],
)
def test_what_is_wrong_is_named(command: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("benchmark", *command.split()) == 2
    assert hint in capsys.readouterr().err
