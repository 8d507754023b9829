"""The table that an evaluation ends with, from the CSV files that MONAI's ``MetricsSaver`` wrote."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xattnres_monai.data.layout import stem
from xattnres_monai.utils.tables import markdown

__all__ = ["ASD", "DICE", "HD95", "read_metric", "report", "summary", "table"]

Values = NDArray[np.float64]
DICE, HD95, ASD = "val_mean_dice", "hd95", "asd"  # as the configs name them, and so MetricsSaver its files


def read_metric(evaluation_dir: str | Path, metric: str) -> tuple[list[str], Values]:
    """Cases and their values per foreground class, shape ``(cases, classes)``.

    Dice is NaN where the label lacks a class; distances are not finite where label or prediction does.

    Args:
        evaluation_dir: folder that ``MetricsSaver`` wrote to.
        metric: ``val_mean_dice``, ``hd95`` (95th percentile of the Hausdorff distance) or ``asd`` (average symmetric
            surface distance).

    Raises:
        FileNotFoundError: when the folder holds no evaluation.
    """
    path = Path(evaluation_dir) / f"{metric}_raw.csv"
    if not path.exists():
        raise FileNotFoundError(
            f"no {path.name} in {evaluation_dir}, expected an evaluation's folder; run evaluate.json"
        )
    header, *lines = path.read_text().splitlines()
    # columns: file name, which MONAI does not quote when it has commas, one per class, mean
    rows = [line.rsplit(",", header.count(",")) for line in lines]
    values = np.array([row[1:-1] for row in rows], dtype=float)
    return [stem(row[0]) for row in rows], values if metric == DICE else np.where(np.isfinite(values), values, np.nan)


def table(rows: Mapping[str, Values], class_names: Sequence[str], digits: Mapping[str, int] | None = None) -> str:
    """Mean ± standard deviation over cases of each class and of the mean over classes, one line per row.

    Args:
        rows: values ``(cases, classes)`` by what they are; NaN is left out.
        class_names: of the foreground classes.
        digits: after the point, by row; 3 where not given.
    """
    lines = [["mean ± sd over cases", *class_names, "mean"]]
    for name, values in rows.items():
        masked = np.ma.masked_invalid(values)
        columns = [*masked.T, masked.mean(axis=1)]
        places = (digits or {}).get(name, 3)
        cells = [f"{c.mean():.{places}f} ± {c.std():.{places}f}" if c.count() else "–" for c in columns]
        lines.append([name, *cells])
    return markdown(lines)


def summary(
    evaluation_dir: str | Path,
    labels: Mapping[str, str],
    unit: str = "mm",
    caption: str = "",
    others: Mapping[str, Values] | None = None,
) -> str:
    """The table of an evaluation; also written to ``summary.md``, and all values to ``cases.csv``, beside the CSV.

    Args:
        evaluation_dir: folder that ``MetricsSaver`` wrote to.
        labels: class names by their values, background first.
        unit: of the distances.
        caption: what has to be said wherever the figures are shown.
        others: Dice ``(cases, classes)`` of other methods on the same cases, by their names.
    """
    names = list(labels.values())[1:]
    cases, dice = read_metric(evaluation_dir, DICE)
    hd95, asd = (read_metric(evaluation_dir, metric)[1] for metric in (HD95, ASD))
    rows = {
        "Dice": dice,
        **{f"Dice, {name}": values for name, values in (others or {}).items()},
        f"HD95 ({unit})": hd95,
        f"average surface distance ({unit})": asd,
    }
    title = f"{len(cases)} validation cases" + (f", {caption}" if caption else "")
    text = f"{title}\n\n{table(rows, names, dict.fromkeys(list(rows)[-2:], 2))}\n"
    missed = int((np.isnan(asd) & ~np.isnan(dice)).sum())
    if missed:
        text += f"\nThe distances leave out {missed} structures that the network missed altogether.\n"
    with (Path(evaluation_dir) / "cases.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["case", "class", "dice", f"hd95_{unit}", f"asd_{unit}"])
        for row, case in enumerate(cases):
            for column, name in enumerate(names):
                writer.writerow([case, name, *(f"{values[row, column]:.4f}" for values in (dice, hd95, asd))])
    (Path(evaluation_dir) / "summary.md").write_text(text)
    return text


def report(output_dir: str | Path) -> str:
    """What a bundle's workflows left in their ``output_dir``: the table, and where the files lie.

    Raises:
        FileNotFoundError: when there is no such folder.
    """
    root = Path(output_dir)
    if not root.is_dir():
        raise FileNotFoundError(f"got no folder {root}, expected the output_dir of a run")
    table = root / "evaluation" / "summary.md"
    lines = [table.read_text() if table.exists() else f"{'evaluation':13} none yet"]
    for title, pattern in (
        ("segmentation", "predictions/*"),
        ("picture", "evaluation/overlays/*.png"),
        ("checkpoint", "checkpoints/model.pt"),
    ):
        files = sorted(root.glob(pattern))
        others = f" and {len(files) - 1} more beside it" if len(files) > 1 else ""
        lines.append(f"{title:13} {files[0] if files else 'none yet'}{others}")
    return "\n".join(lines)
