"""Draws docs/images/mechanism.png: what the last stage of a real 2D UNet draws on, grid by grid.

Run it from anywhere: ``python docs/figures/mechanism.py [FILE]``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xattnres_monai import FeatureHistory, XAttnResUNet

STAGE = "decoder0"
BOX = {"ha": "center", "va": "center", "fontsize": 9}


def drawn_sources(size: int) -> dict[int, list[str]]:
    """Names and widths of the sources of the stage, by the side of the grid on which they are weighed."""
    network = XAttnResUNet(2, 1, 4, (16, 32, 64, 128, 256), (2, 2, 2, 2), num_res_units=2).eval()
    grids: dict[int, list[str]] = {}

    def record(module: torch.nn.Module, inputs: tuple[torch.Tensor, FeatureHistory], _: torch.Tensor) -> None:
        current, history = inputs
        names = list(network.xattnres)
        for index in module.sources:
            source = history.pooled(index, list(current.shape[2:]))
            grids.setdefault(source.shape[2], []).append(f"{names[index]}\n{source.shape[1]} channels")
        grids.setdefault(current.shape[2], []).append(f"current feature\n{current.shape[1]} channels")

    network.xattnres[STAGE].register_forward_hook(record)
    with torch.no_grad():
        network(torch.rand(1, 1, size, size))
    return dict(sorted(grids.items()))


def draw_grid(axes: Axes, x: int, side: int, names: list[str], last: bool) -> None:
    """One grid: its sources above, their softmax below, and what goes on to the next."""
    axes.text(x, 3.6, f"{side} × {side}", weight="bold", **BOX)
    for row, name in enumerate(names):
        axes.text(
            x, 2.9 - 0.75 * row, name, bbox={"boxstyle": "round", "facecolor": "#dbe9f6", "edgecolor": "#4a7fb5"}, **BOX
        )
    axes.annotate("", (x, 0.45), (x, 1.75), arrowprops={"arrowstyle": "->"})
    result = "input of the stage" if last else "mean v, logit l"
    colour = "#d9f0d3" if last else "#fde6ce"
    axes.text(x, 0.2, f"softmax\n{result}", bbox={"boxstyle": "round", "facecolor": colour, "edgecolor": "grey"}, **BOX)
    if not last:
        axes.annotate("", (x + 0.62, 0.2), (x + 0.38, 0.2), arrowprops={"arrowstyle": "->", "linewidth": 1.5})
        axes.text(x + 0.5, -0.12, "interpolate,\ncompete as\none source", ha="center", va="top", fontsize=8)


def figure() -> Figure:
    grids = drawn_sources(size=160)
    picture = Figure(figsize=(2.6 * len(grids), 4.2), layout="constrained")
    axes = picture.add_subplot()
    axes.set(xlim=(-0.5, len(grids) - 0.5), ylim=(-0.8, 3.9))
    axes.axis("off")
    for x, (side, names) in enumerate(grids.items()):
        draw_grid(axes, x, side, names, last=x == len(grids) - 1)
    return picture


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "images" / "mechanism.png"
    figure().savefig(target, dpi=110)
