"""The command `regard`: a verb, where a verb has several the task, and settings; nothing heavy before a task runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

from .. import __doc__ as package_docstring
from .. import __version__
from ..class_names import nearest
from . import settings as s
from .run.help_page import entry, help_page, summary
from .run.task_choice import choose_task

__all__ = ["TASKS", "Task", "find_task", "main"]


class Task(NamedTuple):
    """The settings class of a task, and what runs it.

    Attributes:
        settings: its settings class.
        module: module below `regard.tools` with `run(settings) -> exit code`.
    """

    settings: type
    module: str


#: Verb -> task -> what runs it; a verb without tasks has the one task "".
TASKS: dict[str, dict[str, Task]] = {
    "train": {
        "classifier": Task(s.TrainClassifierSettings, "train.classifier"),
        "mil": Task(s.TrainMilSettings, "train.mil.job"),
        "restorer": Task(s.TrainRestorerSettings, "train.restorer"),
        "lvlm-demo": Task(s.TrainLvlmDemoSettings, "train.lvlm_demo.job"),
    },
    "evaluate": {
        "classifier": Task(s.EvaluateClassifierSettings, "evaluate.classifier"),
        "lvlm": Task(s.EvaluateLvlmSettings, "evaluate.lvlm"),
        "restorer": Task(s.EvaluateRestorerSettings, "evaluate.restorer"),
    },
    "ask": {"": Task(s.AskSettings, "look.ask")},
    "sinks": {"": Task(s.SinksSettings, "look.sinks")},
    "score": {"": Task(s.ScoreSettings, "evaluate.score")},
    "build-pope": {"": Task(s.BuildPopeSettings, "evaluate.build_pope")},
    "slide": {"": Task(s.SlideSettings, "slides.job")},
    "restore": {"": Task(s.RestoreSettings, "restore.job")},
    "view": {"": Task(s.ViewSettings, "look.view")},
    "convert": {"": Task(s.ConvertSettings, "convert.job")},
    "benchmark": {
        "blocks": Task(s.BenchmarkBlocksSettings, "benchmark.blocks"),
        "hosts": Task(s.BenchmarkHostsSettings, "benchmark.hosts"),
        "heads": Task(s.BenchmarkHeadsSettings, "benchmark.heads"),
        "lvlm": Task(s.BenchmarkLvlmSettings, "benchmark.lvlm"),
        "slides": Task(s.BenchmarkSlidesSettings, "benchmark.slides"),
        "restorers": Task(s.BenchmarkRestorersSettings, "benchmark.restorers"),
    },
    "demo": {
        "classifier": Task(s.DemoClassifierSettings, "demo.classifier"),
        "mil": Task(s.DemoMilSettings, "demo.mil"),
        "restoration": Task(s.DemoRestorationSettings, "demo.restoration"),
    },
    "list": {"": Task(s.ListSettings, "info.list")},
    "doctor": {"": Task(s.DoctorSettings, "info.doctor")},
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: words after `regard`; by default those of the process.

    Returns:
        0 for done, 1 where some items failed, 2 for a wrong setting.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = "regard"
    try:
        if not words or words[0] in ("-h", "--help"):
            sys.stdout.write(_overview())
            return 0 if words else 2
        if words[0] == "--version":
            print(f"regard {__version__}")
            return 0
        verb, task, rest = find_task(words)
        command = f"regard {verb} {task or ''}".rstrip()
        if task is None:
            sys.stdout.write(f"regard {verb} needs a task:\n{_tasks_of(verb)}")
            return 0 if rest else 2
        if {"-h", "--help"} & {*rest}:
            sys.stdout.write(help_page(command, TASKS[verb][task].settings))
            return 0
        from .run.option_parser import parse_settings  # not needed for help
        from .run.run_folder import check_run_folder, has_run_folder

        settings = parse_settings(command, TASKS[verb][task].settings, rest)
        if has_run_folder(settings):
            check_run_folder(settings)
        return import_module(f".{TASKS[verb][task].module}", __package__).run(settings)
    except KeyboardInterrupt:
        sys.stderr.write(f"{command}: stopped; the same command resumes after the last finished part\n")
        return 130
    except (ValueError, OSError, ModuleNotFoundError) as error:
        if os.environ.get("REGARD_TRACEBACK"):
            raise
        sys.stderr.write(f"{command}: {error}\n")
        is_trouble = isinstance(error, OSError) and not isinstance(error, FileNotFoundError | PermissionError)
        return 1 if is_trouble else 2


def find_task(words: Sequence[str]) -> tuple[str, str | None, list[str]]:
    """The verb, the task and the rest of a command; None is the help about all tasks of a verb.

    Raises:
        ValueError: there is no such verb or task, or the task is not clear.
    """
    verb, *rest = words
    if verb not in TASKS:
        raise ValueError(f"there is no {verb!r}; {nearest(verb, TASKS)}See 'regard --help'")
    tasks = TASKS[verb]
    if "" in tasks:
        return verb, "", rest
    if rest and rest[0] in tasks:
        return verb, rest[0], rest[1:]
    if rest and not rest[0].startswith("-"):
        raise ValueError(f"{verb} {rest[0]!r} is not a task; {nearest(rest[0], tasks)}Tasks: {', '.join(tasks)}")
    if verb == "demo" and not rest:
        return verb, "classifier", rest
    if not rest or {"-h", "--help"} & {*rest}:
        return verb, None, rest
    task, reason = choose_task(verb, {name: task.settings for name, task in tasks.items()}, rest)
    sys.stderr.write(f"This is regard {verb} {task}: {reason}\n")
    return verb, task, rest


def _overview() -> str:
    lines = [package_docstring or "", "", "usage: regard TASK [options]", ""]
    for verb, tasks in TASKS.items():
        for name, task in tasks.items():
            lines += entry(f"{verb} {name}".rstrip(), summary(task.settings))
    lines += ["", "regard TASK --help shows its options, regard --version the version."]
    return "\n".join(lines) + "\n"


def _tasks_of(verb: str) -> str:
    lines = [line for name, task in TASKS[verb].items() for line in entry(f"{verb} {name}", summary(task.settings))]
    return "\n".join(lines) + "\n"
