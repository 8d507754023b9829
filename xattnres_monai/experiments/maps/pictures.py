"""Draw heat maps of stages and sources, and of weights over an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from monai.data import MetaTensor

from xattnres_monai.evaluation.overlays import cuts, upright

__all__ = ["heat_map", "over_image"]


def heat_map(
    values: Mapping[str, Mapping[str, float]],
    title: str,
    notes: Mapping[str, str] | None = None,
    diverging: bool = False,
) -> Figure:
    """Draw a cell with its value for every stage (row) and source (column).

    Args:
        values: the values, by stage and source.
        title: title of the picture.
        notes: a short note to the right of each row, by stage.
        diverging: use a colour map that is white at 0, for values with a sign.
    """
    sources = list(dict.fromkeys(source for row in values.values() for source in row))
    cells = np.array([[row.get(source, np.nan) for source in sources] for row in values.values()])
    figure = Figure(
        figsize=(2.5 + 0.8 * len(sources), 1.6 + 0.42 * len(values)), facecolor="white", layout="constrained"
    )
    panel = figure.subplots()
    limit = float(np.nanmax(np.abs(cells))) or 1.0
    low, colours = (-limit, "RdBu") if diverging else (0.0, "viridis")
    panel.imshow(cells, vmin=low, vmax=limit, cmap=colours, aspect="auto")
    for (row, column), value in np.ndenumerate(cells):
        if np.isfinite(value):
            dark = (not diverging and value < 0.6 * limit) or (diverging and abs(value) > 0.6 * limit)
            shown = round(value, 2) + 0.0  # turns -0.00 into 0.00
            panel.text(column, row, f"{shown:.2f}", ha="center", va="center", fontsize=8, color="w" if dark else "k")
    panel.set_xticks(range(len(sources)), sources, rotation=30, ha="right", fontsize=8)
    panel.set_yticks(range(len(values)), list(values), fontsize=8)
    panel.set_xlabel("source", fontsize=9)
    panel.set_ylabel("stage", fontsize=9)
    for row, stage in enumerate(values):
        panel.text(len(sources) - 0.4, row, (notes or {}).get(stage, ""), va="center", fontsize=8, clip_on=False)
    panel.set_title(title, fontsize=10, loc="left")
    return figure


def over_image(
    image: MetaTensor, segmentation: MetaTensor, weights: Mapping[str, MetaTensor], title: str, uniform: float
) -> Figure:
    """Draw the weights on the section of the image that shows most of the segmentation.

    Args:
        image: image ``(C, *S)``; the first channel is shown.
        segmentation: class of every voxel ``(1, *S)``, drawn as an outline.
        weights: weights ``(1, *S)`` of each source, by name.
        title: title of the picture.
        uniform: the weight of each source if all were equal; it is drawn in white.
    """
    _, axis, index = cuts(upright(segmentation)[0].numpy())[0]

    def section(volume: MetaTensor) -> Any:
        plane = upright(volume)[0].numpy()
        return (plane if axis is None else np.take(plane, index, axis)).T

    columns = min(5, 1 + len(weights))
    rows = -(-(1 + len(weights)) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.8 * rows), facecolor="white", layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    sizes = upright(image).pixdim.tolist()
    aspect = sizes[1] / sizes[0]
    grey = section(image)
    for panel in panels:
        panel.set_axis_off()
    panels[0].imshow(grey, cmap="gray", origin="lower", aspect=aspect)
    panels[0].set_title("image", fontsize=9)
    for panel, (source, weight) in zip(panels[1:], weights.items()):
        # centre the colours on the uniform weight: red is more than uniform, blue is less
        scaled = np.interp(section(weight), (0, uniform, 1), (0, 0.5, 1))
        panel.imshow(scaled, cmap="RdBu_r", vmin=0, vmax=1, origin="lower", aspect=aspect)
        panel.contour(section(segmentation), levels=[0.5], colors="black", linewidths=0.6)
        panel.set_title(source, fontsize=9)
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), "RdBu_r"), ax=panels.tolist(), shrink=0.7)
    bar.set_ticks([0, 0.5, 1], labels=["0", f"{uniform:.2f} (uniform)", "1"])
    figure.suptitle(title, fontsize=10)
    return figure
