"""The command `regard`: one subcommand a job, settings from flags and YAML, nothing heavy before a job runs."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import sys
from collections.abc import Collection, Sequence
from importlib import import_module
from typing import Any, NoReturn, get_args, get_type_hints

from jsonargparse import ActionConfigFile, ArgumentParser

from .. import __doc__ as package_docstring
from .. import __version__
from .run.recipes import recipe_file
from .settings import (
    AskSettings,
    BenchmarkSettings,
    BuildPopeSettings,
    ConvertSettings,
    DemoSettings,
    DoctorSettings,
    EvaluateSettings,
    ListSettings,
    RestoreSettings,
    ScoreSettings,
    SinksSettings,
    SlideSettings,
    TrainClassifierSettings,
    TrainLvlmDemoSettings,
    TrainMilSettings,
    TrainRestorerSettings,
    ViewSettings,
)

__all__ = ["build_parser", "main"]

#: Job -> its module, with `run(settings) -> exit code`.
MODULES = {
    "train classifier": "train.classifier",
    "train mil": "train.mil.job",
    "train restorer": "train.restorer",
    "train lvlm-demo": "train.lvlm_demo.job",
    "evaluate": "evaluate.classifier",
    "score": "evaluate.score",
    "slide": "slides.job",
    "build-pope": "evaluate.build_pope",
    "convert": "convert.job",
    "list": "info.list",
    "doctor": "info.doctor",
    "demo": "demo.classifier",
    "benchmark": "benchmark.blocks",
    "restore": "restore.job",
    "ask": "look.ask",
    "sinks": "look.sinks",
    "view": "look.view",
}

#: Job -> its settings.
JOBS: dict[str, type] = {
    "train classifier": TrainClassifierSettings,
    "train mil": TrainMilSettings,
    "train restorer": TrainRestorerSettings,
    "train lvlm-demo": TrainLvlmDemoSettings,
    "evaluate": EvaluateSettings,
    "score": ScoreSettings,
    "slide": SlideSettings,
    "build-pope": BuildPopeSettings,
    "convert": ConvertSettings,
    "list": ListSettings,
    "doctor": DoctorSettings,
    "demo": DemoSettings,
    "benchmark": BenchmarkSettings,
    "restore": RestoreSettings,
    "ask": AskSettings,
    "sinks": SinksSettings,
    "view": ViewSettings,
}


class _RecipeAction(ActionConfigFile):
    """`--config` takes a path or the name of a recipe."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        try:
            path = recipe_file(values)
        except ValueError as error:
            parser.error(str(error))
        super().__call__(parser, cfg, str(path), option_string)


class _Parser(ArgumentParser):
    """Says what is wrong in one line, with the nearest known name, and exits with 2.

    Attributes:
        repeated: options that may be given several times; what they name is collected in a list.
    """

    repeated: Collection[str] = ()

    def parse_args(self, args: Any = None, *rest: Any, **options: Any) -> Any:
        """Parse; an option that may be repeated adds to its list, as jsonargparse does for `--option+`."""
        if args is not None and self.repeated:
            pairs = [str(word).partition("=") for word in args]
            args = [f"{key}{'+' * (key in self.repeated)}{equals}{value}" for key, equals, value in pairs]
        return super().parse_args(args, *rest, **options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        parser = getattr(ex, "subcommand_parser", None) or self
        command = parser.prog.replace(" [options]", "")
        missing = re.search(r"arguments are required: ([\w-]+)\.(\w+)", message)
        if missing:  # the job's parser has not got that far
            command, message = f"{command} {missing[1]}", f"{missing[2]} is missing"
        sys.stderr.write(f"{command}: {_with_hint(message, parser)}\nTry: {command} --help\n")
        self.exit(2)


def _with_hint(message: str, parser: ArgumentParser) -> str:
    """The message on one line; where it names something unknown, with the nearest name that is known."""
    message = " ".join(message.split())
    unknown = re.search(r"unrecognized arguments: (--[^\s=]+)|does not accept option '([^']+)'", message)
    choice = re.search(r"invalid choice: '([^']+)'", message)
    near: list[str] = []
    if unknown:
        options = [option for action in parser._actions for option in action.option_strings]
        near = difflib.get_close_matches(unknown[1] or f"--{unknown[2]}", options, n=1)
    elif choice:
        near = difflib.get_close_matches(choice[1], JOBS, n=1)
    return f"{message}; did you mean {near[0]}?" if near else message


def build_parser() -> ArgumentParser:
    """The parser of the whole command; building it loads no torch."""
    parser = _Parser(prog="regard", description=package_docstring, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"regard {__version__}")
    jobs = parser.add_subcommands(dest="job", metavar="JOB")
    tasks: dict[str, Any] = {}
    for name, settings in JOBS.items():
        job = _Parser(description=(settings.__doc__ or "").partition("\n")[0], allow_abbrev=False)
        job.add_argument("--config", action=_RecipeAction, help="YAML file, or the name of a recipe (regard list)")
        several = {field.name: field for field in dataclasses.fields(settings) if "words" in field.metadata}
        word = {field.name: field for field in dataclasses.fields(settings) if "word" in field.metadata}
        job.add_class_arguments(settings, as_positional=True, skip={*several, *word})
        for one in word.values():
            choices = get_args(get_type_hints(settings)[one.name])
            job.add_argument(one.name, nargs="?", default=one.default, choices=choices, help=one.metadata["word"])
        for words in several.values():
            required = words.default_factory is dataclasses.MISSING
            job.add_argument(words.name, nargs="+" if required else "*", type=str, help=words.metadata["words"])
        job.repeated = {f"--{field.name}" for field in dataclasses.fields(settings) if "repeated" in field.metadata}
        verb, _, task = name.partition(" ")
        if not task:
            jobs.add_subcommand(name, job, help=job.description)
            continue
        if verb not in tasks:
            group = _Parser(description=f"regard {verb} TASK", allow_abbrev=False)
            jobs.add_subcommand(verb, group, help=f"one of {', '.join(one for one in JOBS if one.startswith(verb))}")
            tasks[verb] = group.add_subcommands(dest="task", metavar="TASK")
        tasks[verb].add_subcommand(task, job, help=job.description)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0 for done, 1 for done in part, 2 for a wrong setting.

    Args:
        arguments: words after `regard`; the process's own by default.
    """
    parser = build_parser()
    parsed = parser.parse_args(arguments)
    chosen, name = parser.instantiate(parsed)[parsed.job], parsed.job
    if getattr(chosen, "task", None) is not None and f"{name} {chosen.task}" in JOBS:
        chosen, name = chosen[chosen.task], f"{name} {chosen.task}"
    try:
        settings = JOBS[name](**{key: value for key, value in vars(chosen).items() if key != "config"})
        return import_module(f".{MODULES[name]}", __package__).run(settings)
    except KeyboardInterrupt:
        sys.stderr.write(f"regard {name}: stopped; the same command goes on from the last finished part\n")
        return 130
    except (ValueError, OSError, ModuleNotFoundError) as error:
        if os.environ.get("REGARD_TRACEBACK"):
            raise
        sys.stderr.write(f"regard {name}: {error}\n")
        ran_into_trouble = isinstance(error, OSError) and not isinstance(error, FileNotFoundError | PermissionError)
        return 1 if ran_into_trouble else 2
