"""The table that an evaluation ends with, from the CSV files that MONAI's ``MetricsSaver`` wrote."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["read_dice", "report", "summary", "table"]

RAW_DICE = "val_mean_dice_raw.csv"


def read_dice(evaluation_dir: str | Path) -> tuple[list[str], NDArray[np.float64]]:
    """Cases and their Dice per foreground class, shape ``(cases, classes)``, NaN where a class is absent.

    Raises:
        FileNotFoundError: when the folder holds no evaluation.
    """
    path = Path(evaluation_dir) / RAW_DICE
    if not path.exists():
        raise FileNotFoundError(
            f"no {RAW_DICE} in {evaluation_dir}, expected the folder of an evaluation; run evaluate.json"
        )
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    # columns: file name, one per class, mean
    return [Path(row[0]).name for row in rows[1:]], np.array([row[1:-1] for row in rows[1:]], dtype=float)


def table(rows: Mapping[str, NDArray[np.float64]], class_names: list[str]) -> str:
    """Mean ± standard deviation over cases of each class and of the mean over classes, one line per row.

    Args:
        rows: Dice ``(cases, classes)`` by the name of the method.
        class_names: of the foreground classes.
    """
    header = ["Dice (mean ± sd over cases)", *class_names, "mean"]
    lines = [header]
    for name, dice in rows.items():
        columns = np.column_stack([dice, np.nanmean(dice, axis=1)])
        lines.append([name, *(f"{np.nanmean(c):.3f} ± {np.nanstd(c):.3f}" for c in columns.T)])
    widths = [max(map(len, column)) for column in zip(*lines)]
    padded = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines]
    return "\n".join([padded[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *padded[1:]])


def summary(
    evaluation_dir: str | Path,
    labels: Mapping[str, str],
    caption: str = "",
    others: Mapping[str, NDArray[np.float64]] | None = None,
) -> str:
    """The Dice table of an evaluation, with a line that says of what; also written to ``summary.md`` beside the CSV.

    Args:
        evaluation_dir: folder that ``MetricsSaver`` wrote to.
        labels: class names by their values, background first.
        caption: what has to be said wherever the figures are shown.
        others: Dice ``(cases, classes)`` of other methods on the same cases, by their names.
    """
    cases, dice = read_dice(evaluation_dir)
    title = f"{len(cases)} validation cases" + (f", {caption}" if caption else "")
    text = f"{title}\n\n{table({'network': dice, **(others or {})}, list(labels.values())[1:])}\n"
    (Path(evaluation_dir) / "summary.md").write_text(text)
    return text


def report(output_dir: str | Path) -> str:
    """What a bundle's workflows left in their ``output_dir``: the table, and where the files lie."""
    root = Path(output_dir)
    lines = [(root / "evaluation" / "summary.md").read_text()]
    for title, pattern in (
        ("segmentation", "predictions/*"),
        ("picture", "evaluation/overlays/*.png"),
        ("checkpoint", "checkpoints/model.pt"),
    ):
        files = sorted(root.glob(pattern))
        others = f" and {len(files) - 1} more beside it" if len(files) > 1 else ""
        lines.append(f"{title:13} {files[0] if files else 'none yet'}{others}")
    return "\n".join(lines)
