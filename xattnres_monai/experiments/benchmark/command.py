"""The command ``benchmark``: it measures, prints tables, writes a file of results and draws a picture."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from tqdm import tqdm

from xattnres_monai.experiments.benchmark.cases import CASES, FORMS, Case
from xattnres_monai.experiments.benchmark.figures import Figures, counted
from xattnres_monai.experiments.benchmark.tables import counts_table, report

__all__ = ["benchmark"]

Results = dict[str, dict[str, dict[str, Any]]]
SIZES = {
    "UNet 3D (16…256), batch 1": [Case("unet", 3, size, 1, 16) for size in (32, 64, 96, 128)],
    "UNet 2D (32…512), batch 1": [Case("unet", 2, size, 1, 32) for size in (128, 256, 512, 1024)],
}
DEPTHS = {"UNet 3D, 64³, batch 1": [Case("unet", 3, 64, 1, 16, levels) for levels in (3, 4, 5, 6)]}


def benchmark(
    cases: str | Sequence[str] = tuple(CASES),
    repeats: int = 7,
    device: str = "cpu",
    dtype: str = "float32",
    compiled: bool = False,
    output: str = "benchmark.json",
    plot: bool = False,
    **options: Any,
) -> str:
    """Compare time, memory and memory traffic of XAttnRes, plain MONAI and the paper's literal equation.

    Args:
        cases: any of swin_unetr_f48, swin_unetr_f24, unetr_f16, unet_3d, unet_2d_wide and unet_2d; by default all.
        repeats: number of timed rounds, after one warm-up round.
        device: ``cpu`` or ``cuda``. ``meta`` only counts operators and memory traffic, and writes no file.
        dtype: dtype of autocast: ``float32`` (no autocast), ``bfloat16`` or ``float16``.
        compiled: compile the networks with ``torch.compile`` and also count the traffic of the compiled code. The
            literal form is left out.
        output: file for the results. It is updated after every case, and cases that it already holds are not repeated.
        plot: also draw the cost against image size and network depth, as a PNG beside ``output``.
        **options: options of XAttnRes, such as ``--recompute`` or ``--query spatial``.

    Returns:
        The tables.

    Raises:
        ValueError: for an unknown case, for ``meta`` with ``plot`` or ``compiled``, or for a file with results of
            another machine or setting.
    """
    names = (cases,) if isinstance(cases, str) else tuple(cases)
    unknown = [name for name in names if name not in CASES]
    if unknown:
        raise ValueError(f"got the cases {', '.join(unknown)}, expected some of {', '.join(CASES)}")
    wanted = [CASES[name] for name in names]
    if device == "meta":
        if plot or compiled:
            raise ValueError(
                "got device=meta with plot or compiled, expected neither, because meta only counts operators; drop them"
            )
        return counts_table({str(case): counted(case, options) for case in wanted}, "operators")
    figures = Figures(Path(output), repeats, device, dtype, compiled, options)
    for case in tqdm(wanted, desc="benchmark", unit="case", disable=None):
        figures.measure(case)
        figures.count(case)
    lines = [str(date.today()), report(figures.stored, [str(case) for case in wanted])]
    if plot:
        lines.append(f"drawn in {_plot(figures, Path(output).with_suffix('.png'))}")
    return "\n\n".join(lines)


def _plot(figures: Figures, picture: Path) -> Path:
    cases = [case for series in (SIZES | DEPTHS).values() for case in series]
    for case in tqdm(cases, desc="plot", unit="case", disable=None):
        figures.measure(case)
    draw(figures.stored["results"]).savefig(picture, dpi=110)
    return picture


def draw(results: Results) -> Figure:
    """Plot the time relative to plain MONAI against the size of the image and the number of levels."""
    figure = Figure(figsize=(12, 4), facecolor="white", layout="constrained")
    panels = figure.subplots(1, 3)
    for panel, (title, cases) in zip(panels, (SIZES | DEPTHS).items()):
        steps = [case.levels if title in DEPTHS else case.size for case in cases]
        for form, colour in zip(FORMS[1:], ("C0", "C3")):
            if form not in results[str(cases[0])]:
                continue
            for mode, style in (("inference", "-o"), ("training", "--s")):
                low, median, high = zip(*(results[str(case)][form][mode] for case in cases))
                panel.plot(steps, median, style, color=colour, label=f"{form}, {mode}")
                panel.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
        panel.axhline(1, color="grey", linewidth=0.8)
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("levels of the network" if title in DEPTHS else "voxels per side")
        panel.set_xticks(steps)
    panels[0].set_ylabel("time relative to plain MONAI")
    panels[0].legend(frameon=False, fontsize=8)
    return figure
