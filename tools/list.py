"""`regard list`: models, attention blocks and recipes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import timm
import torch
import yaml
from rich.console import Console
from rich.table import Table

from ..vision.attention import ATTENTION, attention_class
from ..vision.backbones import FAMILIES
from .recipes import recipes
from .settings import ListSettings

__all__ = ["run"]


def run(settings: ListSettings) -> int:
    """Print what was asked for, as tables or as one JSON object."""
    parts = {"models": list_models, "blocks": list_blocks, "recipes": list_recipes}
    wanted = parts if settings.kind == "all" else {settings.kind: parts[settings.kind]}
    found = {name: list(rows()) for name, rows in wanted.items()}
    if settings.json:
        json.dump(found, sys.stdout, indent=1)
        sys.stdout.write("\n")
        return 0
    console = Console()
    for name, rows in found.items():
        table = Table(*(column.replace("_", " ") for column in rows[0]), title=name.capitalize())
        for row in rows:
            table.add_row(*("" if value is None else str(value) for value in row.values()))
        console.print(table)
    return 0


def list_models() -> Iterator[dict[str, Any]]:
    """Published models: name, paper, parameters in millions, ImageNet top-1 and whether its weights are published."""
    for family in FAMILIES.values():
        for name, tags in family.default_cfgs.items():
            with torch.device("meta"):
                model = timm.create_model(name)
            parameters = sum(weight.numel() for weight in model.parameters())
            for tag, published in tags.cfgs.items():
                yield {
                    "name": name,
                    "tag": tag,
                    "paper": family.PAPER,
                    "parameters_M": round(parameters / 1e6, 3),
                    "top1": family.TOP1.get(f"{name}.{tag}"),
                    "weights": ", ".join(["published", *(published.notes or ())]) if published.has_weights else "none",
                }


def list_blocks() -> Iterator[dict[str, Any]]:
    """Attention blocks: name, kind, paper and what they are."""
    for name in ATTENTION:
        cls = attention_class(name)
        summary = (cls.__doc__ or "").strip().partition("\n")[0]
        yield {"name": name, "kind": cls.kind, "paper": cls.paper, "what": summary}


def list_recipes() -> Iterator[dict[str, Any]]:
    """Recipes: name, model, attention, data and the command that runs them."""
    for name, path in recipes().items():
        text = path.read_text(encoding="utf-8")
        recipe = yaml.safe_load(text)
        backbone = recipe.get("backbone", {})
        yield {
            "name": name,
            "model": backbone.get("name"),
            "attention": backbone.get("attention"),
            "data": recipe.get("data", "digits"),
            "command": text.partition("\n")[0].removeprefix("# "),
        }
