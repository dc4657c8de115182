"""An image of heads that were compared: their score beside how they spread attention."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ..plots import save_figure

__all__ = ["draw_heads"]


def draw_heads(summary: Mapping[str, Any], attention: Mapping[str, str], path: Path) -> None:
    """Draw the score of each head with its interval, and the statistics of its attention with their deviation.

    Args:
        summary: of the comparison.
        attention: names of the statistics -> what they are called.
        path: PNG file to write.
    """
    heads, score = summary["heads"], summary["score"]
    shown = [name for name in attention if any(name in head["attention"] for head in heads.values())]
    figure = Figure(figsize=(3.6 * (1 + len(shown)), 0.45 * len(heads) + 1.8))
    panels = figure.subplots(1, 1 + len(shown), sharey=True, squeeze=False)[0]
    rows = range(len(heads))
    for place, head in enumerate(heads.values()):
        lead = head["metrics"][score]
        if lead["mean"] is None:
            continue
        panels[0].plot(lead["mean"], place, "o", color=f"C{place}")
        if lead["low"] is not None:
            panels[0].plot([lead["low"], lead["high"]], [place, place], color=f"C{place}", linewidth=2)
        for panel, name in zip(panels[1:], shown, strict=True):
            if name in head["attention"]:
                own = head["attention"][name]
                panel.barh(place, own["mean"], xerr=own["sd"], color=f"C{place}", height=0.6)
    panels[0].set(title=f"{score.replace('_', ' ')}, 95 % interval", yticks=rows, yticklabels=list(heads))
    panels[0].invert_yaxis()
    for panel, name in zip(panels[1:], shown, strict=True):
        panel.set(title=f"attention: {attention[name]}", xlim=(0, 1))
    for panel in panels:
        panel.grid(axis="x", alpha=0.3)
    figure.suptitle(summary["data"])
    save_figure(figure, path)
