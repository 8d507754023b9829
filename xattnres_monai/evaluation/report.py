"""The table at the end of an evaluation, made from the CSV files of MONAI's ``MetricsSaver``."""

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
DICE, HD95, ASD = "val_mean_dice", "hd95", "asd"  # names in the configs; MetricsSaver names its files after them


def read_metric(evaluation_dir: str | Path, metric: str) -> tuple[list[str], Values]:
    """Read the names of the cases and their values of a metric.

    Args:
        evaluation_dir: folder that ``MetricsSaver`` wrote to.
        metric: ``val_mean_dice``, ``hd95`` (95th percentile of the Hausdorff distance) or ``asd`` (average symmetric
            surface distance).

    Returns:
        The names, and an array of shape ``(cases, classes)`` for the foreground classes. Dice is NaN if the label lacks
        the class. A distance is NaN if the label or the prediction lacks it.

    Raises:
        FileNotFoundError: when the folder holds no evaluation.
    """
    path = Path(evaluation_dir) / f"{metric}_raw.csv"
    if not path.exists():
        raise FileNotFoundError(
            f"no {path.name} in {evaluation_dir}, expected an evaluation's folder; run evaluate.json first"
        )
    header, *lines = path.read_text().splitlines()
    # columns: file name, one value per class, mean; MONAI does not quote file names with commas
    rows = [line.rsplit(",", header.count(",")) for line in lines]
    values = np.array([row[1:-1] for row in rows], dtype=float)
    return [stem(row[0]) for row in rows], values if metric == DICE else np.where(np.isfinite(values), values, np.nan)


def table(rows: Mapping[str, Values], class_names: Sequence[str], digits: Mapping[str, int] | None = None) -> str:
    """Make a Markdown table of the mean ± standard deviation over cases, for each class and for the mean over classes.

    Args:
        rows: values ``(cases, classes)`` by the names of the rows. NaN is left out.
        class_names: names of the foreground classes.
        digits: number of digits after the point by the names of the rows. By default 3.

    Returns:
        The table.
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
    """Make the table of an evaluation. Write it to ``summary.md``, and the values of every case to ``cases.csv``.

    Args:
        evaluation_dir: folder that ``MetricsSaver`` wrote to. The two files go there as well.
        labels: class names by their values, background first.
        unit: unit of the distances.
        caption: a remark that must accompany the results wherever they are shown.
        others: Dice ``(cases, classes)`` of other methods on the same cases, by the names of the methods.

    Returns:
        The content of ``summary.md``.
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
    """Show the results in a bundle's ``output_dir``: the table of the evaluation and the paths of the files.

    Args:
        output_dir: the folder that the bundle's runs wrote to.

    Returns:
        The table and the paths, as text.

    Raises:
        FileNotFoundError: when there is no such folder.
    """
    root = Path(output_dir)
    if not root.is_dir():
        raise FileNotFoundError(f"got no folder {root}, expected the output_dir of a run; check the path")
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
