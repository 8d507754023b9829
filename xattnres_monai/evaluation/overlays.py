"""Overlay pictures: they show a segmentation and the label's outline over the image, in three planes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from monai.data import MetaTensor
from monai.transforms import MapTransform, Orientation
from numpy.typing import NDArray

from xattnres_monai.data.layout import stem

__all__ = ["SaveOverlayd", "cuts", "overlay", "upright"]

Plane = tuple[str, str, str, NDArray[Any], NDArray[Any], NDArray[Any] | None, float]
# tab20 has pairs of a strong and a light colour; the strong ones come first here
COLOURS = [tuple(colour) for colour in colormaps["tab20"]([*range(0, 20, 2), *range(1, 20, 2)])]


def overlay(
    image: NDArray[Any],
    segmentation: NDArray[Any],
    label: NDArray[Any] | None = None,
    spacing: Sequence[float] | None = None,
    class_names: Mapping[int, str] | None = None,
    title: str = "",
) -> Figure:
    """Draw a case with its segmentation filled and its label outlined.

    Args:
        image: grey values ``(*S)`` in 2D or 3D, axes in RAS order.
        segmentation: class of every voxel, ``(*S)``.
        label: ground truth, the true class of every voxel ``(*S)``, or ``None``.
        spacing: voxel size along each axis in mm. By default 1.
        class_names: names of the classes above 0, for the legend.
        title: title above the picture.

    Returns:
        A figure. In 2D it has one panel. In 3D it has three, one for each plane, at the largest sections of the label,
        or of the segmentation if there is no label or the label is empty.
    """
    names = dict(class_names or {value: f"class {value}" for value in range(1, int(segmentation.max()) + 1)})
    count = max(names, default=1)
    colours = ListedColormap([COLOURS[value % len(COLOURS)] for value in range(count)])
    sections = cuts(segmentation if label is None or not label.any() else label)
    figure = Figure(figsize=(4 * len(sections), 4.6), facecolor="white", layout="constrained")
    window = np.percentile(image, (0.5, 99.5))
    for panel, (plane, axis, index) in zip(figure.subplots(1, len(sections), squeeze=False)[0], sections):
        cut = [np.take(volume, index, axis).T if axis is not None else volume.T for volume in (image, segmentation)]
        sizes = [size for number, size in enumerate(spacing or [1.0] * image.ndim) if number != axis]
        panel.imshow(cut[0], cmap="gray", vmin=window[0], vmax=window[1], origin="lower", aspect=sizes[1] / sizes[0])
        filled = np.ma.masked_equal(cut[1], 0)
        panel.imshow(filled, cmap=colours, vmin=0.5, vmax=count + 0.5, alpha=0.45, origin="lower",
                     aspect=sizes[1] / sizes[0], interpolation="nearest")  # fmt: skip
        if label is not None:
            _outline(panel, np.take(label, index, axis).T if axis is not None else label.T, names, colours)
        panel.set_title(plane, fontsize=10)
        panel.set_axis_off()
    patches: list[Any] = [Patch(color=colours(value - 1), alpha=0.6, label=name) for value, name in names.items()]
    if label is not None:
        patches.append(Line2D([], [], color="dimgray", linewidth=1.2, label="outlines: reference"))
    figure.legend(handles=patches, loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(title, fontsize=11)
    return figure


def cuts(classes: NDArray[Any]) -> list[tuple[str, int | None, int]]:
    """Return name, axis and index of the sections with the most voxels above 0, one section for each plane."""
    if classes.ndim == 2:
        return [("", None, 0)]
    sections: list[tuple[str, int | None, int]] = []
    for axis, plane in ((2, "axial"), (1, "coronal"), (0, "sagittal")):
        others = tuple(other for other in range(3) if other != axis)
        area = np.count_nonzero(classes, axis=others)
        sections.append((plane, axis, int(area.argmax()) if area.any() else classes.shape[axis] // 2))
    return sections


def _outline(panel: Any, label: NDArray[Any], names: Mapping[int, str], colours: ListedColormap) -> None:
    for value in names:
        inside = label == value
        if inside.any() and not inside.all() and min(inside.shape) > 1:  # a single line of voxels has no outline
            panel.contour(inside, levels=[0.5], colors=[colours(value - 1)], linewidths=1.2)


class SaveOverlayd(MapTransform):
    """MONAI post-transform that writes an overlay of every case to ``output_dir/<case>.png`` and changes no data.

    Args:
        keys: key of the segmentation (one channel of classes).
        image_key: key of the image. The picture shows its first channel.
        label_key: key of the label (one channel of classes). A case without a label gets no outline.
        output_dir: folder for the pictures.
        class_names: names of the classes by their values.
        caption: text in the title of every picture, after the name of the case.
    """

    def __init__(
        self,
        keys: str,
        output_dir: str,
        class_names: Mapping[Any, str],
        image_key: str = "image",
        label_key: str = "label",
        caption: str = "",
    ) -> None:
        super().__init__(keys)
        self.output_dir = Path(output_dir)
        self.class_names = {int(value): name for value, name in class_names.items() if int(value) > 0}
        self.image_key = image_key
        self.label_key = label_key
        self.caption = caption

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        image = upright(data[self.image_key])
        name = stem(data[self.image_key].meta["filename_or_obj"])
        label = data.get(self.label_key)
        for key in self.key_iterator(data):
            figure = overlay(
                image[0].cpu().numpy(),
                upright(data[key])[0].cpu().numpy(),
                None if label is None else upright(label)[0].cpu().numpy(),
                spacing=image.pixdim.tolist()[: image.ndim - 1],
                class_names=self.class_names,
                title=f"{name}  {self.caption}".strip(),
            )
            self.output_dir.mkdir(parents=True, exist_ok=True)
            figure.savefig(self.output_dir / f"{name}.png", dpi=110)
        return dict(data)


def upright(volume: MetaTensor) -> MetaTensor:
    """Turn a volume ``(1, H, W, D)`` to RAS orientation, and flip a picture ``(1, W, H)`` so that row 0 is on top."""
    if volume.ndim == 3:
        return volume.flip(-1)
    return Orientation(axcodes="RAS", labels=None)(volume)
