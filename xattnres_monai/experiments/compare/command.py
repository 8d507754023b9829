"""The command ``compare``: which cells there are, and what it writes of them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.utils import optional_import

from xattnres_monai.bundles.workflows import overlays
from xattnres_monai.data.layout import stem
from xattnres_monai.experiments.compare.cells import Cell, run_cells
from xattnres_monai.experiments.compare.results import Results, differences_plot

__all__ = ["compare"]


def compare(
    bundle: str,
    variants: str | Sequence[str] = ("baseline", "xattnres", "baseline_no_skip", "no_skip"),
    seeds: int | Sequence[int] = 0,
    fold: int = 0,
    jobs: int = 1,
    epochs: int | None = None,
    network: str = "",
    output: str = "",
    tracking: str = "",
    **overrides: Any,
) -> str:
    """Train and evaluate variants of a bundle with several seeds, and compare them patient by patient.

    A cell (a variant with a seed) has a folder of its own in ``output``, with ``log.txt``. Cells that are finished are
    not run again, and one that was broken off goes on from its last epoch. Beside them lie ``cases.csv`` (Dice and
    distances of every variant, seed, case and class), ``comparison.md`` (what is returned) and ``differences.png``.

    Compared are the networks of the last epoch, unless ``--val_interval`` is given: the best of several epochs, chosen
    on the patients that are compared, favours variants that vary more.

    Args:
        bundle: its folder.
        variants: ``xattnres`` for the bundle as it is, else the X of ``configs/variant_X.json``; the first is the one
            that the others are compared with.
        seeds: of initial weights, augmentation and order.
        fold: that validates.
        jobs: number of cells that run at once, sharing the processor's cores and the GPUs.
        epochs: of every training; by default the bundle's.
        network: the X of ``configs/network_X.json``; by default the bundle's own.
        output: folder for the results; by default ``output/compare`` of the bundle.
        tracking: URI of an MLflow server or store, such as ``sqlite:///mlflow.db``, that gets the results too.
        **overrides: other keys of the bundle's config, e.g. ``--dataset_dir DIR``.

    Returns:
        The tables.

    Raises:
        ValueError: for an unknown variant or fewer than two, fewer than one job, a folder with cells of other
            settings, images of one name, or ``tracking`` without MLflow.
        RuntimeError: when cells failed; names their logs. The others are finished and stay.
    """
    root = Path(bundle).resolve()
    names = dict.fromkeys((variants,) if isinstance(variants, str) else variants)
    numbers = dict.fromkeys((seeds,) if isinstance(seeds, int) else seeds)
    if len(names) < 2:
        raise ValueError(f"got the variants {', '.join(names)}, expected two or more to compare")
    if jobs < 1:
        raise ValueError(f"got jobs={jobs}, expected at least 1: the number of cells that run at once")
    if tracking and not optional_import("mlflow")[1]:
        raise ValueError("got --tracking, which needs MLflow: pip install mlflow")
    train = ConfigParser(ConfigParser.load_config_file(root / "configs" / "train.json"))
    length = epochs or train["train#trainer#max_epochs"]
    given = {"fold": fold, "val_interval": length, **overrides}
    folder = Path(output).resolve() if output else root / "output" / "compare"
    cells = [
        Cell(
            bundle=root,
            overlays=overlays(root, variant, network),
            variant=variant,
            seed=seed,
            output=folder,
            epochs=length,
            overrides=given,
        )
        for seed in numbers  # all variants with one seed first: a table that is broken off can be read
        for variant in names
    ]
    config = cells[0].workflow("evaluate").parser
    patients = _patients(config.get_parsed_content("cases"))  # what is wrong with the data is told before hours of work
    for cell in cells:
        cell.claim()
    failed = run_cells(cells, jobs)
    if failed:
        logs = ", ".join(str(cell.folder / "log.txt") for cell in failed)
        raise RuntimeError(
            f"{len(failed)} of {len(cells)} cells failed, why is at the end of {logs}; mend it, run again"
        )
    results = Results(cells, patients, classes=list(config["labels"].values())[1:], unit=config["distance_unit"])
    text = _write(results, folder)
    if tracking:
        results.track(tracking, folder)
    return f"{text}\nwritten to {folder}: comparison.md, cases.csv, differences.png"


def _patients(cases: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Patient of every case, by the name of its image, as evaluations name it."""
    patients = {stem(case["image"]): case["patient_id"] for case in cases}
    if len(patients) < len(cases):
        raise ValueError(
            f"got {len(cases)} images with {len(patients)} names, expected names that differ, as their "
            "figures are told apart by them; rename the files"
        )
    return patients


def _write(results: Results, folder: Path) -> str:
    """Rows, picture and tables; the tables are returned too."""
    with (folder / "cases.csv").open("w", newline="") as file:
        csv.writer(file).writerows(results.rows())
    differences_plot(results).savefig(folder / "differences.png", dpi=110)
    text = results.text()
    (folder / "comparison.md").write_text(text)
    return text
