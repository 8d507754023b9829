"""Tables as text."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["columns", "markdown"]


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines with columns of even width."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as a Markdown table with columns of even width; the first row is its head."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])
