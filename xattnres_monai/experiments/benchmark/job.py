"""A piece of the GPU measurements: its size, its data and the file that holds its results."""

from __future__ import annotations

import json
import shutil
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xattnres_monai.bundles.command import Bundles
from xattnres_monai.experiments.benchmark.cases import CASES, Case
from xattnres_monai.experiments.benchmark.volumes import write_acdc, write_btcv
from xattnres_monai.utils.atomic_write import replace_text
from xattnres_monai.utils.errors import one_line

__all__ = ["ACDC", "BTCV", "Attempts", "Job", "bundle_folder"]

ACDC, BTCV = "acdc_mri_segmentation", "btcv_ct_segmentation"


@dataclass(frozen=True)
class Scale:
    """The sizes of networks, data sets and trainings."""

    cases: tuple[Case, ...]  # benchmark cases
    repeats: int
    patients: dict[str, int]  # numbers of ACDC patients
    few_patients: dict[str, int]
    stack: tuple[int, int, int]  # voxels
    volumes: tuple[int, ...]  # numbers of BTCV's files
    volume: tuple[int, int, int]  # voxels
    epochs: int  # of a short training
    compiled: tuple[str, ...]  # bundles to train with the key compile
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict)  # config keys, by bundle


REAL = Scale(
    cases=tuple(reversed(CASES.values())),  # UNets first: they are measured fastest and have the largest overhead
    repeats=7,
    patients={"training": 70, "validation": 10},
    few_patients={"training": 8, "validation": 2},
    stack=(216, 256, 10),
    volumes=(1, 2, 3, 4, 35),
    volume=(512, 512, 150),
    epochs=3,
    compiled=(ACDC, BTCV),
)
TINY = Scale(
    cases=(Case("unet", 2, 16, 1, 4, levels=2),),
    repeats=1,
    patients={"training": 2, "validation": 1},
    few_patients={"training": 2, "validation": 1},
    stack=(36, 40, 3),
    volumes=(1, 35),
    volume=(48, 48, 16),
    epochs=2,
    compiled=(ACDC,),
    overrides={
        ACDC: {"num_workers": 0, "roi_size": [32, 32], "network_def#channels": [4, 8], "network_def#strides": [2]},
        BTCV: {
            "num_workers": 0,
            "roi_size": [64, 32, 32],
            "network_def#feature_size": 12,
            "network_def#depths": [1, 1, 1, 1],
        },
    },
)


@dataclass(frozen=True)
class Job:
    """A piece, and where and how it runs.

    Args:
        piece: name of the piece.
        folder: absolute path of the folder for all results.
        device: ``cuda`` or ``cpu``.
        tiny: use small networks, volumes and epochs, to try out the command itself.
    """

    piece: str
    folder: Path
    device: str
    tiny: bool

    @property
    def scale(self) -> Scale:
        return TINY if self.tiny else REAL

    @property
    def figures(self) -> Path:
        return self.folder / f"{self.piece}.json"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.piece}.log"

    def run_folder(self, name: str) -> Path:
        """Return the output folder of a training or inference."""
        return self.folder / "runs" / self.piece / name.replace(" ", "_")

    def fresh_folder(self, name: str) -> Path:
        """Delete :meth:`run_folder` and return its path. A training would resume from a checkpoint in it."""
        shutil.rmtree(self.run_folder(name), ignore_errors=True)
        return self.run_folder(name)

    def overrides(self, bundle: str) -> dict[str, Any]:
        """Return config keys that set a bundle's size, and the device if it is a CPU, because bundles prefer a GPU."""
        device = {"device": "cpu"} if self.device == "cpu" else {}
        return {**device, **self.scale.overrides.get(bundle, {})}

    def data(self, bundle: str, few: bool = False) -> Path:
        """Return the folder of a generated data set, and generate it if it does not exist."""
        scale, folder = self.scale, self.folder / "data"
        if bundle == BTCV:
            return write_btcv(folder / "btcv", scale.volumes, scale.volume)
        patients = scale.few_patients if few else scale.patients
        return write_acdc(folder / ("acdc_few" if few else "acdc"), patients, scale.stack)

    def note(self, row: str, values: Mapping[str, Any]) -> None:
        """Write figures into a row of the piece's file immediately, because the piece may be stopped at any moment."""
        rows = json.loads(self.figures.read_text()) if self.figures.exists() else {}
        rows[row] = {**rows.get(row, {}), **values}
        replace_text(self.figures, json.dumps(rows, indent=2) + "\n")


def bundle_folder(name: str) -> Path:
    """Return the folder of a bundle in the zoo beside the package."""
    return Bundles().zoo / name


class Attempts:
    """The parts of a piece. A part that fails does not stop the others.

    Attributes:
        failed: one line per failed part.
    """

    def __init__(self) -> None:
        self.failed: list[str] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a GPU, its memory or the compiler can fail in many ways
            traceback.print_exc()
            self.failed.append(f"{name}: {one_line(error)}")

    def end(self) -> None:
        """Raise a ``RuntimeError`` if a part failed."""
        if self.failed:
            raise RuntimeError("; ".join(self.failed))
