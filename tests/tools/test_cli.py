"""The command line: settings from flags and recipes, and one clear line for each mistake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from regard.tools import cli
from regard.tools.run.recipes import recipes
from regard.tools.settings import TrainSettings


def error_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The message of a command that must fail with exit code 2 and without a traceback."""
    try:
        code = cli.main(words)
    except SystemExit as stop:
        code = stop.code
    message = capsys.readouterr().err
    assert code == 2
    assert "Traceback" not in message
    return message


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["tran"], "did you mean train?"),
        (["train", "--epoch", "3"], "did you mean --epochs?"),
        (["train", "--backbone.nam=vit"], "did you mean --backbone.name?"),
        (["train", "--config", "digits_vit_vna"], "did you mean 'digits_vit_van'"),
        (["train", "--epochs", "many"], "Expected a <class 'int'>. Got value: many"),
        (["train", "--precision", "fp8"], "bf16-mixed"),
        (["train", "--config", "no/such/file.yaml"], "neither a file nor a recipe"),
        ([], "train"),
        (["convert"], "regard convert: source is missing"),
        (["convert", "file.pth", "--trus", "true"], "did you mean --trust?"),
    ],
)
def test_a_wrong_word_is_named_with_the_nearest_right_one(
    words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hint in error_of(capsys, *words)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("epoch: 3", "did you mean --epochs?"),
        ("backbone: {nam: x}", "did you mean --backbone.name?"),
        ("a: [", ""),
    ],
)
def test_a_mistake_in_a_recipe_is_named(
    text: str, hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    assert hint in error_of(capsys, "train", "--config", str(tmp_path / "recipe.yaml"))


def test_flags_win_over_the_recipe_and_the_recipe_over_defaults() -> None:
    parser = cli.build_parser()
    words = ["train", "--config", "digits_vit_van", "--backbone.options.depth", "2", "--seed", "7"]
    settings = parser.instantiate(parser.parse_args(words)).train
    assert settings.backbone.attention == "van"
    assert settings.backbone.options["depth"] == 2
    assert settings.backbone.options["img_size"] == 8
    assert (settings.seed, settings.accumulate) == (7, TrainSettings().accumulate)


def test_print_config_gives_a_file_that_config_takes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        cli.main(["train", "--config", "digits_vit_van", "--print_config"])
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["backbone"]["attention"] == "van"
    (tmp_path / "printed.yaml").write_text(printed)
    parser = cli.build_parser()
    parser.parse_args(["train", "--config", str(tmp_path / "printed.yaml")])


def test_every_recipe_says_in_its_first_line_how_to_run_it() -> None:
    for name, path in recipes().items():
        command = path.read_text().splitlines()[0].removeprefix("# ").split()
        assert command[0] == "regard"
        assert command[command.index("--config") + 1] == name.rpartition("/")[2]
        cli.build_parser().parse_args(command[1:])


def test_the_module_is_the_command() -> None:
    result = subprocess.run([sys.executable, "-m", "regard", "--version"], capture_output=True, text=True)
    assert result.stdout.startswith("regard 0.")
