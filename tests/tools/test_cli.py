"""The command line: settings from flags and recipes, and one clear line for each mistake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from jobs import run

from regard.tools.cli import TASKS, find_task
from regard.tools.run.help_page import described, help_page
from regard.tools.run.option_parser import parse_settings, settings_parser
from regard.tools.run.recipes import recipes

COMMANDS = [(verb, task) for verb, tasks in TASKS.items() for task in tasks]


def error_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The message of a command that must fail with exit code 2 and one line."""
    assert run(*words) == 2
    message = capsys.readouterr().err
    assert message.startswith("regard")
    assert message.count("\n") == 1
    assert len(message) <= 320
    return message


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ("tran", "did you mean 'train'?"),
        ("train clasifier", "did you mean 'classifier'?"),
        ("train classifier --epoch 3", "did you mean '--epochs'?"),
        ("train classifier --backbone.nam=vit", "did you mean '--backbone.name'?"),
        ("train --config digits_vit_vna", "did you mean 'digits_vit_van'"),
        ("train classifier --epochs many", "--epochs is 'many'; give a whole number"),
        ("train classifier --precision fp8", "bf16-mixed"),
        ("train --config no/such/file.yaml", "neither a file nor a recipe"),
        ("train --seed 1", "which task?"),
        ("evaluate classifier", "model is missing"),
        ("evaluate lvlm --split val", "there is no option --split"),
        ("evaluate lvlm --shard 3/2", "--shard is '3/2'; give I/N"),
        ("evaluate lvlm --benchmark pop", "did you mean 'pope'?"),
        ("evaluate lvlm --top_p 0", "--top_p is 0.0; give above 0 to 1"),
        ("evaluate lvlm --engine ray --shard 1/2", "make the shards themselves"),
        ("ask example why? --fix vhrr", "did you mean 'vhr'?"),
        ("ask nothing.png why?", "there is no file nothing.png"),
        ("restore a b", "there is no image or folder a"),
        ("restore . b --memory lots", "--memory is 'lots'"),
        ("restore . b --quality 101", "--quality is 101; give 1 to 100"),
        ("restore onlyone", "IN OUT"),
        ("convert", "source is missing"),
        ("convert file.pth --trus true", "did you mean '--trust'?"),
        ("convert file.pth", "there is no file of weights file.pth"),
        ("view nothing", "there is no folder nothing"),
        ("benchmark hosts --hosts [a] --options.ela {}", "'ela', which is not measured"),
    ],
)
def test_a_mistake_is_named_before_torch_is_imported(
    command: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hint in error_of(capsys, *command.split())


def test_a_missing_file_is_refused_without_torch() -> None:
    check = "import sys; from regard.tools import cli; cli.main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    for words in (["restore", "a", "b"], ["ask", "a.png", "why?"], ["evaluate", "lvlm", "--fix", "vhrr"]):
        assert subprocess.run([sys.executable, "-c", check, *words], capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("epoch: 3", "did you mean '--epochs'?"),
        ("backbone: {nam: x}", "did you mean '--backbone.name'?"),
        ("a: [", ""),
    ],
)
def test_a_mistake_in_a_recipe_is_named(
    text: str, hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    assert hint in error_of(capsys, "train", "classifier", "--config", str(tmp_path / "recipe.yaml"))


def test_flags_win_over_the_recipe_and_the_recipe_over_defaults() -> None:
    words = ["--config", "digits_vit_van", "--backbone.options.depth", "2", "--seed", "7"]
    settings = parse_settings("regard train classifier", TASKS["train"]["classifier"].settings, words)
    assert settings.backbone.attention == "van"
    assert settings.backbone.options["depth"] == 2
    assert settings.backbone.options["img_size"] == 8
    assert (settings.seed, settings.accumulate) == (7, 1)


def test_print_config_gives_a_file_that_config_takes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run("train", "classifier", "--config", "digits_vit_van", "--print_config") == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["backbone"]["attention"] == "van"
    (tmp_path / "printed.yaml").write_text(printed)
    words = ["--config", str(tmp_path / "printed.yaml")]
    parse_settings("regard train classifier", TASKS["train"]["classifier"].settings, words)


def test_every_recipe_says_in_its_first_line_how_to_run_it() -> None:
    for name, path in recipes().items():
        command = path.read_text().splitlines()[0].removeprefix("# ").split()
        assert command[0] == "regard"
        assert command[command.index("--config") + 1] == name.rpartition("/")[2]
        settings_parser(" ".join(command[:3]), TASKS[command[1]][command[2]].settings).parse_args(command[3:])


def test_the_verb_alone_finds_the_task_and_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("steps_scale: 0.1\n")
    (tmp_path / "config.json").write_text('{"architecture": "van_b0", "label_names": ["a"]}')
    for words, task in (
        (["train", "--config", "ucsb_heads"], "mil"),
        (["train", "--config", str(tmp_path / "own.yaml")], "lvlm-demo"),
        (["evaluate", "--model", str(tmp_path)], "classifier"),
        (["evaluate", "--model", "hat_photo_x2"], "restorer"),
        (["evaluate", "--benchmark", "pope"], "lvlm"),
        (["benchmark", "--heads", "[abmil]"], "heads"),
    ):
        assert find_task(words)[1] == task
        assert f"This is regard {words[0]} {task}" in capsys.readouterr().err
    assert find_task(["demo"])[1] == "classifier"


def test_a_verb_alone_lists_its_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train") == 2
    assert "train restorer" in capsys.readouterr().out


@pytest.mark.parametrize(("verb", "task"), COMMANDS)
def test_the_help_page_describes_every_option_in_80_columns(verb: str, task: str) -> None:
    settings = TASKS[verb][task].settings
    page = help_page(f"regard {verb} {task}".rstrip(), settings)
    assert max(map(len, page.splitlines())) <= 80
    actions = settings_parser(f"regard {verb} {task}", settings)._actions
    options = [option for action in actions for option in action.option_strings]
    assert all(described(settings).get(option[2:], "x") for option in options)


def test_the_module_is_the_command() -> None:
    result = subprocess.run([sys.executable, "-m", "regard", "--version"], capture_output=True, text=True)
    assert result.stdout.startswith("regard 0.")
