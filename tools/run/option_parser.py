"""Options of a command as settings: flags, YAML files and recipes, and one clear line for each mistake."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

from jsonargparse import ActionConfigFile, ArgumentParser

from ...class_names import nearest
from ..settings.types import check
from .help_page import in_words
from .recipes import recipe_file

__all__ = ["parse_settings", "settings_parser"]

#: Maximum length of a message in characters.
_MAX_MESSAGE = 240


def parse_settings(command: str, settings: type, words: Sequence[str]) -> Any:
    """Settings of a task from the words after its name.

    Args:
        command: words of the command, for messages.
        settings: settings class of the task.
        words: options and their values.

    Raises:
        ValueError: an option is unknown, or its value is not allowed.

    Example:
        >>> from regard.tools.settings import DemoClassifierSettings
        >>> parse_settings("regard demo", DemoClassifierSettings, ["--epochs", "3"]).epochs
        3
    """
    parser = settings_parser(command, settings)
    parsed = parser.parse_args(list(words))
    parsed.pop("config", None)
    check(settings, parsed)
    return settings(**vars(parser.instantiate(parsed)))


def settings_parser(command: str, settings: type) -> ArgumentParser:
    """The parser of a task's options; making it loads no torch.

    Args:
        command: words of the command, for messages.
        settings: settings class of the task.
    """
    hints = get_type_hints(settings)
    parser = _Parser(prog=command, allow_abbrev=False, add_help=False)
    parser.add_argument("--config", action=_RecipeAction)
    for field in dataclasses.fields(settings):
        hint = hints[field.name]
        options: dict[str, Any] = {"type": hint}
        if field.default_factory is not dataclasses.MISSING:
            options["default"] = field.default_factory()
        elif field.default is not dataclasses.MISSING:
            options["default"] = field.default
        if "positional" not in field.metadata:
            required = "default" not in options
            parser.add_argument(f"--{field.name}", required=required, **options)
        elif get_origin(hint) is list:
            options["type"] = get_args(hint)[0]
            parser.add_argument(field.name, nargs="*" if "default" in options else "+", **options)
        else:
            parser.add_argument(field.name, **options)
        if "repeated" in field.metadata:
            parser.repeated |= {f"--{field.name}"}
    return parser


class _RecipeAction(ActionConfigFile):
    """`--config` accepts a path or the name of a recipe."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        super().__call__(parser, cfg, str(recipe_file(values)), option_string)


class _Parser(ArgumentParser):
    """Raises ValueError with one line that names the problem, with the nearest known name.

    Attributes:
        repeated: options that may be given several times; their values are collected in a list.
    """

    repeated: frozenset[str] = frozenset()

    def parse_args(self, args: Any = None, *rest: Any, **options: Any) -> Any:
        """Parse; an option that may be repeated adds to its list, as jsonargparse does for `--option+`."""
        pairs = [str(word).partition("=") for word in args or ()]
        args = [f"{key}{'+' * (key in self.repeated)}{equals}{value}" for key, equals, value in pairs]
        return super().parse_args(args, *rest, **options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the message on one line; an unknown name gets the nearest one that is known."""
        message = " ".join(message.split())
        unknown = re.search(r"nrecognized arguments: (--[^\s=]+)", message)
        nested = re.search(r"Group '(.+?)' does not accept option '(.+?)'", message)
        key = re.search(r'Parser key "([^"]+)"', message)
        not_accepted = re.search(r"Option \\*'(.+?)\\*' is not accepted", message)
        value = re.search(r"Got value: (.*)$", message)
        missing = re.search(r"arguments are required: (.*)$|Key \"([^\"]+)\" is required", message)
        if missing:
            message = f"{missing[1] or missing[2]} is missing"
        elif unknown:
            message = self._unknown(unknown[1])
        elif nested:
            message = self._unknown(f"--{nested[1]}.{nested[2]}")
        elif not_accepted and not key:
            message = self._unknown(f"--{not_accepted[1]}")
        elif not_accepted and key:
            message = f"--{key[1]} has no option {not_accepted[1]!r}"
        elif key and value:
            action = next((action for action in self._actions if action.dest == key[1]), None)
            hint = getattr(action, "_typehint", None) or getattr(action, "type", None)
            message = f"--{key[1]} is {value[1]!r}; give {in_words(hint) if hint else 'another value'}"
        raise ValueError(f"{message[:_MAX_MESSAGE].rstrip('; ')}; see '{self.prog} --help'")

    def _unknown(self, option: str) -> str:
        known = [option for action in self._actions for option in action.option_strings]
        return f"there is no option {option}; {nearest(option, known).rstrip()}"
