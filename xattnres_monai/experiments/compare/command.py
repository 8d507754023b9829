"""The command ``compare``: it lists the cells, runs them and writes their results."""

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

    A cell is one variant with one seed. Every cell has its own folder in ``output``, with a ``log.txt``. Run the
    command again to continue a comparison: it skips finished cells, and an interrupted cell resumes after its last
    epoch. The command also writes ``cases.csv`` (Dice and distances of every variant, seed, case and class),
    ``comparison.md`` (the printed tables) and ``differences.png``.

    The command compares the networks of the last epoch, unless you give ``--val_interval``. With that option, it takes
    the best of several epochs, chosen on the patients that it compares. This favours variants that fluctuate more.

    Args:
        bundle: the bundle's folder.
        variants: ``xattnres`` for the bundle as it is, or the X of ``configs/variant_X.json``. The others are compared
            with the first.
        seeds: seeds of the initial weights, the augmentation and the order of cases.
        fold: the validation fold.
        jobs: number of cells that run at once; they share the CPU cores and the GPUs.
        epochs: number of epochs of every training; by default the bundle's number.
        network: the X of ``configs/network_X.json``; by default the bundle's own network.
        output: folder for the results; by default ``output/compare`` in the bundle.
        tracking: URI of an MLflow server or store that also gets the results, such as ``sqlite:///mlflow.db``.
        **overrides: other keys of the bundle's config, such as ``--dataset_dir DIR``.

    Returns:
        The tables.

    Raises:
        ValueError: for an unknown variant, fewer than two variants, fewer than one job, a folder with cells of other
            settings, several images of the same name, or ``tracking`` without MLflow.
        RuntimeError: when cells failed; the message names their logs. The other cells are finished and keep their
            results.
    """
    root = Path(bundle).resolve()
    names = dict.fromkeys((variants,) if isinstance(variants, str) else variants)
    numbers = dict.fromkeys((seeds,) if isinstance(seeds, int) else seeds)
    if len(names) < 2:
        raise ValueError(f"got the variants {', '.join(names)}, expected two or more to compare")
    if jobs < 1:
        raise ValueError(f"got jobs={jobs}, expected at least 1; give the number of cells to run at once")
    if tracking and not optional_import("mlflow")[1]:
        raise ValueError("got --tracking, expected MLflow to be installed for it; run pip install mlflow")
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
        for seed in numbers  # all variants of a seed first, so that an interrupted comparison has whole seeds
        for variant in names
    ]
    config = cells[0].workflow("evaluate").parser
    patients = _patients(config.get_parsed_content("cases"))  # reports faults of the data before hours of training
    for cell in cells:
        cell.claim()
    failed = run_cells(cells, jobs)
    if failed:
        logs = ", ".join(str(cell.folder / "log.txt") for cell in failed)
        raise RuntimeError(
            f"{len(failed)} of {len(cells)} cells failed; the reason is at the end of {logs}; mend it and run again"
        )
    results = Results(cells, patients, classes=list(config["labels"].values())[1:], unit=config["distance_unit"])
    text = _write(results, folder)
    if tracking:
        results.track(tracking, folder)
    return f"{text}\nwritten to {folder}: comparison.md, cases.csv, differences.png"


def _patients(cases: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the patient of every case, by the name of its image, which evaluations use as the name of the case."""
    patients = {stem(case["image"]): case["patient_id"] for case in cases}
    if len(patients) < len(cases):
        raise ValueError(
            f"got {len(cases)} images with {len(patients)} names, expected a different name for each, because the "
            "results are stored by name; rename the files"
        )
    return patients


def _write(results: Results, folder: Path) -> str:
    """Write ``cases.csv``, ``differences.png`` and ``comparison.md``, and return the text of the last."""
    with (folder / "cases.csv").open("w", newline="") as file:
        csv.writer(file).writerows(results.rows())
    differences_plot(results).savefig(folder / "differences.png", dpi=110)
    text = results.text()
    (folder / "comparison.md").write_text(text)
    return text
