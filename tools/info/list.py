"""`regard list`: models, blocks, recipes, interventions, benchmarks, bag heads and patch encoders."""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
from collections.abc import Iterator
from typing import Any

import timm
import torch
import yaml
from rich.console import Console
from rich.table import Column, Table

from ...class_names import class_named
from ...heads import HEADS, head_class
from ...mllm.interventions import INTERVENTIONS, intervention_class
from ...vision.attention import ATTENTION, attention_class
from ...vision.backbones import FAMILIES
from ...vision.encoders import ENCODERS
from ..evaluate.benchmarks import KNOWN
from ..run.recipes import recipes
from ..settings import ListSettings

__all__ = ["run"]


def run(settings: ListSettings) -> int:
    """Print the chosen kinds, as tables or as one JSON object."""
    parts = {
        "models": list_models,
        "blocks": list_blocks,
        "recipes": list_recipes,
        "interventions": list_interventions,
        "benchmarks": list_benchmarks,
        "heads": list_heads,
        "encoders": list_encoders,
    }
    wanted = parts if settings.kind == "all" else {settings.kind: parts[settings.kind]}
    found = {name: list(rows()) for name, rows in wanted.items()}
    if settings.json:
        json.dump(found, sys.stdout, indent=1)
        sys.stdout.write("\n")
        return 0
    console = Console(width=None if sys.stdout.isatty() else 160)
    for name, rows in found.items():
        first, *columns = (column for column in rows[0] if column != "command")  # too long for a table
        caption = "Run one: regard train --config NAME" if name == "recipes" else None
        table = Table(Column(first, no_wrap=True), title=name.capitalize(), caption=caption)
        for column in columns:
            table.add_column(column.replace("_", " "), overflow="fold")
        for row in rows:
            table.add_row(*("" if row[column] is None else str(row[column]) for column in (first, *columns)))
        console.print(table)
    return 0


def list_models() -> Iterator[dict[str, Any]]:
    """Published models: name, paper, parameters in millions, top-1, PSNR (dB) on Set5, and where weights are."""
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
                    "psnr_set5": getattr(family, "PSNR", {}).get(f"{name}.{tag}", [None])[0],
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
        backbone, command = recipe.get("backbone", {}), text.partition("\n")[0].removeprefix("# ")
        yield {
            "name": name,
            "model": backbone.get("name"),
            "attention": backbone.get("attention"),
            "data": "yours: --data DIR" if "--data" in command else recipe.get("data", "digits"),
            "command": command,
        }


def list_interventions() -> Iterator[dict[str, Any]]:
    """Interventions against hallucination: name, options with their defaults and what they do."""
    for name in INTERVENTIONS:
        yield _described(name, intervention_class(name))


def list_benchmarks() -> Iterator[dict[str, Any]]:
    """Benchmarks of hallucination: name, options with their defaults and what they ask."""
    for name in KNOWN:
        cls = class_named(name, "benchmark", KNOWN, "regard")
        yield _described(name, cls, (sys.modules[cls.__module__].__doc__ or "").partition("\n")[0])


def list_heads() -> Iterator[dict[str, Any]]:
    """Multiple-instance heads: name, paper, what they are, and their options with their defaults."""
    for name in HEADS:
        cls = head_class(name)
        own = [one for one in inspect.signature(cls).parameters.values() if one.default is not inspect.Parameter.empty]
        yield {
            "name": name,
            "paper": getattr(cls, "paper", None),
            "what": (cls.__doc__ or "").partition("\n")[0],
            "options": ", ".join(f"{one.name}={one.default!r}" for one in own if one.name != "num_classes"),
        }


def list_encoders() -> Iterator[dict[str, Any]]:
    """Patch encoders: name, width, patch and resolution, precision, and what must be accepted, given or trusted."""
    for name, row in ENCODERS.items():
        gated = ["gated"] if row.gated else []
        yield {
            "name": name,
            "dim": row.dim,
            "patch_px": row.patch,
            "mpp": row.mpp,
            "precision": row.precision,
            "licence": ", ".join([row.licence, *gated]),
            "source": row.source or None,
            "needs": row.needs or None,
            "paper": row.paper,
        }


def _described(name: str, cls: Any, what: str = "") -> dict[str, Any]:
    options = [
        f"{field.name}={field.default!r}"
        for field in dataclasses.fields(cls)
        if field.default is not dataclasses.MISSING
    ]
    return {"name": name, "what": what or (cls.__doc__ or "").partition("\n")[0], "options": ", ".join(options)}
