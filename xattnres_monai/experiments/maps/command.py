"""The command ``maps``: it computes the attention maps of a case, prints tables and writes files."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.metrics import compute_dice
from monai.networks import one_hot
from monai.transforms import SaveImage
from torch import Tensor
from tqdm import tqdm

from xattnres_monai.bundles.workflows import overlays
from xattnres_monai.data.layout import stem
from xattnres_monai.experiments.maps.case import Case
from xattnres_monai.experiments.maps.pictures import heat_map, over_image
from xattnres_monai.experiments.maps.routing import Routing, attending, sources_of, without_source
from xattnres_monai.utils.tables import markdown

__all__ = ["maps"]

Table = dict[str, dict[str, float]]
CAVEAT = (
    "A share tells how much of a source is mixed in, not how much the result depends on it; --ablate measures that."
)


def maps(
    bundle: str,
    image: str,
    stage: str = "",
    source: str | Sequence[str] = (),
    label: str = "",
    ablate: bool = False,
    variant: str = "xattnres",
    network: str = "",
    output: str = "",
    **overrides: Any,
) -> str:
    """Show which earlier stages each stage of a trained network attends to, for one image.

    The command writes into a folder with the image's name. ``shares.csv`` and ``shares.png`` hold the mean weight of
    every source at every stage; the picture also gives the entropy. For one stage, the command writes the weights of
    the sources at every voxel, as NIfTI on the grid of the image's file and as a picture.

    With ``ablate``, ``ablation.csv`` and ``ablation.png`` show how the segmentation changes when a stage loses one
    source and the other weights are renormalised. With ``label`` too, ``ablation_dice.csv`` and ``ablation_dice.png``
    show how the Dice with the label changes.

    Args:
        bundle: the bundle's folder.
        image: file of the image.
        stage: the stage whose weights are written voxel by voxel; by default the last stage with attention.
        source: one or several sources of that stage; by default all.
        label: file of the image's label, to measure the change of Dice.
        ablate: leave out every source of every stage in turn; each takes one more inference.
        variant: ``xattnres`` for the bundle as it is, or the X of ``configs/variant_X.json``.
        network: the X of ``configs/network_X.json``; by default the bundle's own network.
        output: folder for the results; by default ``maps`` in the output folder of the bundle's network and variant.
        **overrides: other keys of the bundle's ``inference.json``, such as ``--checkpoint FILE``.

    Returns:
        Tables of the shares and the ablation.

    Raises:
        FileNotFoundError: when the image, label or checkpoint does not exist.
        ValueError: for an unknown variant, stage or source, or a network without attention at any stage.
    """
    root = Path(bundle).resolve()
    case = Case(root, Path(image), overlays(root, variant, network), Path(label) if label else None, **overrides)
    stages = attending(case.network)
    if not stages:
        raise ValueError(
            f"got the variant {variant}, which has no attention, expected one with attention; give another --variant"
        )
    stage = _known("stage", stage or stages[-1], stages)
    sources = sources_of(case.network, stage)
    wanted = [_known("source", name, sources) for name in ([source] if isinstance(source, str) else source)] or sources
    folder = (Path(output) if output else case.output_dir / "maps") / stem(image)
    folder.mkdir(parents=True, exist_ok=True)

    routing = Routing(case.network, [(stage, name) for name in wanted])
    weights = case.on_own_grid(case.infer(routing))
    shares = {name: dict(zip(sources_of(case.network, name), row)) for name, row in routing.shares().items()}
    entropy = routing.entropy()
    _write(folder / "shares.csv", shares)
    notes = {name: f"uniform {1 / len(row):.2f}, entropy {entropy[name]:.2f}" for name, row in shares.items()}
    title = "Share of each source in the input of each stage"
    heat_map(shares, f"{title}; entropy 1: all the same", notes).savefig(folder / "shares.png", dpi=110)
    segmentation = case.segment()
    each = {name: weights[index : index + 1] for index, name in enumerate(wanted)}
    _save_volumes(each, stage, folder)
    title_of_stage = f"{stem(image)}: weights of {stage}"
    picture = over_image(case.on_own_grid(case.image), segmentation, each, title_of_stage, 1 / len(sources))
    picture.savefig(folder / f"{stage}.png", dpi=110)
    texts = [f"{title}\n\n{_table(shares, {'entropy': entropy})}", CAVEAT]
    if ablate:
        texts += _ablation(case, segmentation, folder)
    return "\n\n".join([*texts, f"written to {folder}"])


def _save_volumes(weights: Mapping[str, Tensor], stage: str, folder: Path) -> None:
    """Write the weights ``(1, *S)`` of each source as NIfTI."""
    save = SaveImage(output_ext=".nii.gz", separate_folder=False, resample=False, print_log=False)
    for name, volume in weights.items():
        save(volume, filename=str(folder / f"{stage}_{name}"))


def _ablation(case: Case, segmentation: Tensor, folder: Path) -> list[str]:
    """Leave out each source in turn, write what changes, and return it as tables."""
    agreement: Table = {}
    change: Table = {}
    pairs = [(stage, source) for stage in attending(case.network) for source in sources_of(case.network, stage)]
    label = case.label
    before = float("nan") if label is None else _dice(segmentation, label, case.labels)
    for stage, source in tqdm(pairs, desc="ablation", unit="source", disable=None):
        with without_source(case.network, stage, source):
            ablated = case.segment()
        agreement.setdefault(stage, {})[source] = _dice(ablated, segmentation, case.labels)
        if label is not None:
            change.setdefault(stage, {})[source] = _dice(ablated, label, case.labels) - before
    title = "Dice between the segmentation without a source and the one with all"
    _write(folder / "ablation.csv", agreement)
    heat_map(agreement, title).savefig(folder / "ablation.png", dpi=110)
    texts = [f"{title}\n\n{_table(agreement)}"]
    if label is not None:
        title = f"Change of Dice with the label (with all sources: {before:.3f})"
        _write(folder / "ablation_dice.csv", change)
        heat_map(change, title, diverging=True).savefig(folder / "ablation_dice.png", dpi=110)
        texts.append(f"{title}\n\n{_table(change)}")
    return texts


def _dice(segmentation: Tensor, reference: Tensor, labels: Mapping[str, str]) -> float:
    """Return the mean Dice over the foreground classes that occur in the reference."""
    classes = [one_hot(volume[None], num_classes=len(labels)) for volume in (segmentation, reference)]
    return float(compute_dice(*classes, include_background=False).nanmean())


def _known(kind: str, name: str, known: Sequence[str]) -> str:
    if name not in known:
        raise ValueError(f"got the {kind} {name}, expected one of {', '.join(known)}")
    return name


def _write(path: Path, table: Table) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["stage", "source", "value"])
        writer.writerows(
            [stage, source, f"{value:.6f}"] for stage, row in table.items() for source, value in row.items()
        )


def _table(table: Table, more: Mapping[str, Mapping[str, float]] | None = None) -> str:
    sources = list(dict.fromkeys(source for row in table.values() for source in row))
    lines = [["", *sources, *(more or {})]]
    for stage, row in table.items():
        cells = [f"{row[source]:.3f}" if source in row else "" for source in sources]
        lines.append([stage, *cells, *(f"{column[stage]:.2f}" for column in (more or {}).values())])
    return markdown(lines)
