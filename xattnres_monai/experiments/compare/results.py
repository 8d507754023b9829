"""Results of a comparison: per case, on average, and as differences to the first variant, paired by patient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from xattnres_monai.evaluation.report import ASD, DICE, HD95, read_metric, table
from xattnres_monai.experiments.compare.cells import Cell
from xattnres_monai.experiments.compare.statistics import Difference, holm, summarised
from xattnres_monai.utils.tables import markdown

__all__ = ["Results", "differences_plot"]

Values = NDArray[np.float64]


class Results:
    """Metrics of finished cells.

    Args:
        cells: one cell for every variant and seed; the variant of the first cell is the reference.
        patients: patient of every case, by the name of its image.
        classes: names of the foreground classes.
        unit: unit of the distances.
    """

    def __init__(self, cells: Sequence[Cell], patients: Mapping[str, str], classes: Sequence[str], unit: str) -> None:
        self.cells, self.classes, self.unit = list(cells), list(classes), unit
        self.variants = list(dict.fromkeys(cell.variant for cell in cells))
        self.seeds = list(dict.fromkeys(cell.seed for cell in cells))
        self.cases: list[str] = []
        self.values: dict[tuple[str, str, int], Values] = {}  # (cases, classes) by metric, variant and seed
        for cell in cells:
            for metric in (DICE, HD95, ASD):
                cases, values = read_metric(cell.folder / "evaluation", metric)
                order = np.argsort(cases)
                self.cases = [cases[index] for index in order]
                self.values[metric, cell.variant, cell.seed] = values[order]
        self.patients = [patients[case] for case in self.cases]

    def rows(self) -> Iterator[list[str]]:
        """Yield the rows of ``cases.csv``, starting with the header."""
        yield ["variant", "seed", "patient", "case", "class", "dice", f"hd95_{self.unit}", f"asd_{self.unit}"]
        for cell in self.cells:
            metrics = [self.values[metric, cell.variant, cell.seed] for metric in (DICE, HD95, ASD)]
            for row, (case, patient) in enumerate(zip(self.cases, self.patients)):
                for column, name in enumerate(self.classes):
                    figures = [f"{values[row, column]:.4f}" for values in metrics]
                    yield [cell.variant, str(cell.seed), patient, case, name, *figures]

    def difference(self, metric: str, variant: str) -> Difference:
        """Return the variant's values minus the reference's, averaged over the seeds, cases and classes of a patient.

        A structure that either of the two networks missed has no distance, so it is left out of both.
        """
        one, reference = (
            np.stack([self.values[metric, name, seed] for seed in self.seeds]) for name in (variant, self.variants[0])
        )
        differences = np.ma.masked_invalid(one - reference)  # (seeds, cases, classes)
        patients = np.array(self.patients)
        means = [differences[:, patients == patient].mean() for patient in sorted(set(self.patients))]
        return summarised(np.ma.stack(means).filled(np.nan))

    def text(self) -> str:
        """Return the tables in Markdown."""
        first = self.cells[0]
        patients = len(set(self.patients))
        interval = first.overrides["val_interval"]
        chosen = "the last epoch" if interval >= first.epochs else f"the best of every {interval} epochs on these cases"
        head = (
            f"{first.bundle.name}; epochs: {first.epochs}; networks of {chosen}; seeds: "
            f"{', '.join(map(str, self.seeds))}; validation cases: {len(self.cases)}, of {patients} patients"
        )
        averages = [
            f"{title}, over cases and seeds\n\n{table(self._stacked(metric), self.classes, digits)}"
            for title, metric, digits in (
                ("Dice", DICE, None),
                (f"95th percentile of the Hausdorff distance ({self.unit})", HD95, dict.fromkeys(self.variants, 2)),
            )
        ]
        return "\n\n".join([head, *averages, self._by_seed(), self._differences()]) + "\n"

    def track(self, uri: str, folder: Path) -> None:
        """Send the means of every cell and the files of the comparison to MLflow."""
        import mlflow  # noqa: PLC0415  (an optional dependency)

        mlflow.set_tracking_uri(uri)
        mlflow.set_experiment(f"compare {self.cells[0].bundle.name}")
        for cell in self.cells:
            with mlflow.start_run(run_name=cell.name):
                overrides = {key.replace("#", "."): value for key, value in cell.overrides.items()}
                mlflow.log_params({"variant": cell.variant, "seed": cell.seed, "epochs": cell.epochs, **overrides})
                for metric in (DICE, HD95, ASD):
                    means = np.ma.masked_invalid(self.values[metric, cell.variant, cell.seed]).mean(axis=0)
                    figures = dict(zip((name.replace(" ", "_") for name in self.classes), means.filled(np.nan)))
                    mlflow.log_metrics({f"{metric}_{name}": float(value) for name, value in figures.items()})
        with mlflow.start_run(run_name="comparison"):
            for name in ("comparison.md", "cases.csv", "differences.png"):
                mlflow.log_artifact(str(folder / name))

    def _stacked(self, metric: str) -> dict[str, Values]:
        return {
            variant: np.concatenate([self.values[metric, variant, seed] for seed in self.seeds])
            for variant in self.variants
        }

    def _by_seed(self) -> str:
        lines = [["mean Dice", *(f"seed {seed}" for seed in self.seeds), "structures missed, all seeds"]]
        for variant in self.variants:
            dice, asd = ([self.values[metric, variant, seed] for seed in self.seeds] for metric in (DICE, ASD))
            missed = int((np.isnan(asd) & ~np.isnan(dice)).sum())
            lines.append([variant, *(f"{np.nanmean(values):.4f}" for values in dice), str(missed)])
        return f"By seed; distances leave out the structures that a network missed altogether\n\n{markdown(lines)}"

    def _differences(self) -> str:
        lines = [["", "Dice", "95 % interval", "p", "patients better / worse", f"HD95 ({self.unit})", "p"]]
        metrics = [[self.difference(metric, variant) for variant in self.variants[1:]] for metric in (DICE, HD95)]
        adjusted = [holm([difference.p_value for difference in differences]) for differences in metrics]
        for variant, dice, hd95, *p_values in zip(self.variants[1:], *metrics, *adjusted):
            better, worse = int((dice.values > 0).sum()), int((dice.values < 0).sum())
            interval = "–" if np.isnan(dice.interval).any() else "{:+.4f} … {:+.4f}".format(*dice.interval)
            figures = [f"{dice.mean:+.4f}", interval, f"{p_values[0]:.3f}", f"{better} / {worse}"]
            lines.append([variant, *figures, f"{hd95.mean:+.2f}", f"{p_values[1]:.3f}"])
        return (
            f"Differences to {self.variants[0]}, paired by patient (mean over seeds, classes and the patient's cases); "
            "interval: bootstrap over patients, which leaves out the variation between seeds; p: Wilcoxon's "
            f"signed-rank test, with Holm's correction for {len(lines) - 1} comparisons\n\n{markdown(lines)}"
        )


def differences_plot(results: Results) -> Figure:
    """Plot every patient's difference in Dice to the first variant, with the mean and its confidence interval."""
    others = results.variants[1:]
    figure = Figure(figsize=(max(5, 2 + 1.6 * len(others)), 4), facecolor="white", layout="constrained")
    panel = figure.subplots()
    panel.axhline(0, color="grey", linewidth=0.8)
    for place, variant in enumerate(others):
        difference = results.difference(DICE, variant)
        spread = np.linspace(-0.18, 0.18, len(difference.values)) if len(difference.values) > 1 else [0]
        panel.scatter(place + np.asarray(spread), np.sort(difference.values), s=14, alpha=0.6)
        low, high = (abs(bound - difference.mean) for bound in difference.interval)
        panel.errorbar(place + 0.3, difference.mean, [[low], [high]], fmt="o", color="black", capsize=3)
    panel.set_xticks(range(len(others)), others)
    panel.set_xlim(-0.5, len(others) - 0.3)
    panel.set_ylabel(f"Difference of Dice to {results.variants[0]}")
    panel.set_title("points: patients; black: mean and 95 % interval", fontsize=10)
    return figure
