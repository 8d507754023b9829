"""Summarise the results of the command ``gpu`` in Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from xattnres_monai.experiments.benchmark.pieces import PIECES
from xattnres_monai.experiments.benchmark.tables import report
from xattnres_monai.utils.tables import markdown

__all__ = ["summary"]


def summary(folder: Path, state: Mapping[str, Any]) -> str:
    """Summarise all results so far: a table of the pieces, then the results of each piece that has a file.

    Args:
        folder: folder of the files.
        state: machine and size, and the outcome of each piece.
    """
    size = ", tiny sizes: the numbers only show that the command works" * state["tiny"]
    rows = [["piece", "outcome", "seconds"]]
    rows += [[name, str(piece["outcome"]), str(piece["seconds"])] for name, piece in state["pieces"].items()]
    parts = [
        f"# {state['machine'].partition(',')[0]}",
        f"{state['machine']}, {date.today()}{size}",
        markdown(rows),
    ]
    for name, piece in PIECES.items():
        path = folder / f"{name}.json"
        if path.exists():
            parts += [f"## {piece.title}", _tables(json.loads(path.read_text()))]
    return "\n\n".join(parts) + "\n"


def _tables(figures: Mapping[str, Any]) -> str:
    if "results" in figures:
        return report(figures, list(figures["results"]))
    names = list(dict.fromkeys(name for row in figures.values() for name in row))
    rows = [[name, *(_cell(row[name]) if name in row else "" for row in figures.values())] for name in names]
    return markdown([["", *figures], *rows])


def _cell(value: bool | int | float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
