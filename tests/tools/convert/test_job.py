"""`regard convert`: from a file of the authors to a folder that timm loads."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from jobs import run

from regard.tools.convert import job as convert
from regard.vision.downloads import sha256_of

Say = pytest.CaptureFixture[str]


class Hostile:
    """Would touch a file if it were unpickled."""

    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.touched}",)


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model("vig_tiny", num_classes=4).eval()


@pytest.fixture
def authors(network: torch.nn.Module, tmp_path: Path) -> Path:
    file = tmp_path / "vig_t.pth"
    weights = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"model": weights, "args": argparse.Namespace(lr=1), "epoch": 3}, file)
    return file


def logits(model: torch.nn.Module) -> torch.Tensor:
    torch.manual_seed(1)
    with torch.no_grad():
        return model.eval()(torch.rand(1, 3, 224, 224))


def test_the_folder_loads_with_timm_and_gives_equal_logits(
    authors: Path, network: torch.nn.Module, tmp_path: Path, capsys: Say
) -> None:
    out = tmp_path / "converted"
    assert run("convert", authors, "--out", out) == 0
    printed = capsys.readouterr()
    assert "holds the weights of vig_tiny" in printed.err
    assert sha256_of(authors) in "".join(printed.out.split()).replace("│", "")
    again = timm.create_model(f"local-dir:{out}", pretrained=True)
    assert torch.equal(logits(again), logits(network))
    report = json.loads((out / "convert.json").read_text())
    assert report["origin"]["sha256"] == sha256_of(authors)
    assert report["result"]["sha256"] == sha256_of(out / "model.safetensors")
    assert report["result"]["tensors"] == len(network.state_dict())
    assert report["result"]["classes"] == 4
    assert report["unused"] == report["newly_initialised"] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["converted", "vig_t.pth"]


def test_a_second_run_does_nothing_and_overwrites_nothing(authors: Path, tmp_path: Path, capsys: Say) -> None:
    out = tmp_path / "converted"
    words = ("convert", authors, "--model", "vig_tiny", "--out", out)
    assert run(*words) == 0
    before = (out / "model.safetensors").stat().st_mtime_ns
    assert run(*words) == 0
    assert "nothing was done" in capsys.readouterr().err
    assert (out / "model.safetensors").stat().st_mtime_ns == before
    assert run(*words, "--options.num_classes", "3") == 2
    assert "give another --out, or delete it" in capsys.readouterr().err
    (out / "model.safetensors").write_bytes(b"damaged")
    assert run(*words) == 2


def test_unused_and_newly_initialised_tensors_are_reported(tmp_path: Path) -> None:
    dense = timm.create_model("deit_tiny_distilled_patch16_224").state_dict()
    dense.pop("dist_token")
    dense["pos_embed"] = dense["pos_embed"][:, 1:]
    torch.save({"model": dense}, tmp_path / "deit.pth")
    out, model = tmp_path / "out", "sparsifiner_deit_tiny_patch16_224"
    assert run("convert", tmp_path / "deit.pth", "--model", model, "--out", out) == 0
    report = json.loads((out / "convert.json").read_text())
    assert report["unused"] == ["head_dist.bias", "head_dist.weight"]
    assert len(report["newly_initialised"]) == 6 * 12
    assert all("mask_predictor" in name for name in report["newly_initialised"])


def test_a_file_with_more_than_tensors_needs_trust_and_still_runs_nothing(
    network: torch.nn.Module, tmp_path: Path, capsys: Say
) -> None:
    touched, out = tmp_path / "touched", tmp_path / "out"
    torch.save({"model": network.state_dict(), "hook": Hostile(touched)}, tmp_path / "file.pth")
    assert run("convert", tmp_path / "file.pth", "--model", "vig_tiny", "--out", out) == 2
    assert "posix.system" in capsys.readouterr().err
    assert not out.exists()
    assert run("convert", tmp_path / "file.pth", "--model", "vig_tiny", "--out", out, "--trust", "true") == 0
    assert not touched.exists()
    assert "separate process" in json.loads((out / "convert.json").read_text())["reading"]
    assert torch.equal(logits(timm.create_model(f"local-dir:{out}", pretrained=True)), logits(network))


def test_a_conversion_that_is_stopped_leaves_no_folder(
    authors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with monkeypatch.context() as during:
        during.setattr(convert, "write_atomically", stop)
        assert run("convert", authors, "--model", "vig_tiny", "--out", out) == 130
    assert not out.exists()
    assert run("convert", authors, "--model", "vig_tiny", "--out", out) == 0
    assert (out / "convert.json").is_file()


def test_wrong_settings_are_named_in_one_line(authors: Path, tmp_path: Path, capsys: Say) -> None:
    resnet, page, unknown = tmp_path / "resnet.pth", tmp_path / "page.pth", tmp_path / "unknown.pth"
    torch.save(timm.create_model("test_resnet").state_dict(), resnet)
    page.write_text("<!doctype html><p>Sign in")
    torch.save({"a.b": torch.zeros(1)}, unknown)
    (tmp_path / "taken").mkdir()
    for words, hint in (
        ([], "source"),
        ([authors, "--modell", "vig_tiny"], "did you mean '--model'?"),
        ([authors, "--model", "resnet18"], "resnet18 is not one of ours"),
        ([authors, "--model", "vig_small"], "fits vig_tiny"),
        ([authors, "--model", "van_b0"], "looks like the family vig"),
        ([authors, "--sha256", "0" * 64], "expected was 0000"),
        ([authors, "--sha256", "vig"], "is not a SHA-256"),
        ([authors, "--model", "vig_tiny", "--out", tmp_path / "taken"], "give another --out, or delete it"),
        ([resnet], "looks like a ResNet of timm"),
        ([unknown], "its names, such as a.b, are unknown"),
        ([page, "--trust", "true"], "is a web page"),
        ([tmp_path / "nothing.pth"], "there is no file of weights"),
        (["ftp://example.org/vig_t.pth"], "http and https URLs"),
    ):
        assert run("convert", *words) == 2
        printed = capsys.readouterr().err
        assert hint in printed
        assert "Traceback" not in printed
