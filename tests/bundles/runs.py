"""Runs of the zoo's bundles on small data sets in their real layouts, by MONAI's own workflow class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigWorkflow

from tests.data.layouts import write_acdc, write_amos, write_btcv, write_busi, write_msd
from xattnres_monai.bundles import workflows

ZOO = Path(__file__).parents[2] / "bundles"
NAMES = sorted(path.parent.name for path in ZOO.glob("*/bundle.yaml"))
TRAINING = {"val_interval": 1, "learning_rate": 0.02, "batch_size": 4, "patches_per_case": 1}
UNET_3D = {"roi_size": [16, 16, 16], "network_def#channels": [4, 8, 8, 16], "network_def#strides": [2, 2, 2]}
UNET_2D = {"roi_size": [32, 32], "network_def#channels": [4, 8, 8, 16], "network_def#strides": [2, 2, 2]}
SWIN_UNETR = {
    "roi_size": [64, 32, 32],
    "network_def#feature_size": 12,
    "network_def#depths": [1, 1, 1, 1],
    "network_def#window_size": 3,
}
MILLIMETRES = {"spacing": [1.5, 1.5, 1.5]}


def write_organs(root: Path) -> Path:
    return write_msd(root, classes=1)


@dataclass(frozen=True)
class Small:
    """The data set that a bundle is run on, the key that takes its folder, and what makes the bundle small."""

    write: Callable[[Path], Path]
    overrides: dict[str, Any]
    key: str = "dataset_dir"
    training: dict[str, Any] = field(default_factory=dict)


SMALL = {
    "acdc_mri_segmentation": Small(write_acdc, UNET_2D, training={"patches_per_case": 3}),
    "amos_ct_segmentation": Small(write_amos, {**SWIN_UNETR, **MILLIMETRES}, training={"cache_rate": 1.0}),
    "amos_mri_segmentation": Small(write_amos, {**SWIN_UNETR, **MILLIMETRES}),
    "btcv_ct_segmentation": Small(write_btcv, {**SWIN_UNETR, **MILLIMETRES}),
    "busi_ultrasound_segmentation": Small(write_busi, UNET_2D),
    # its own data are simulated, which takes a while and is tested where it is done
    "mni152_mri_segmentation": Small(write_msd, {**UNET_3D, **MILLIMETRES}, key="data_root"),
    "msd_hippocampus_mri_segmentation": Small(write_msd, {**UNET_3D, **MILLIMETRES, "network_def#strides": [1, 2, 2]}),
    "msd_spleen_ct_segmentation": Small(write_organs, {**UNET_3D, **MILLIMETRES}),
}


def overrides(name: str, data: Path, output: Path, training: bool) -> dict[str, Any]:
    small = SMALL[name]
    given = {small.key: str(data), "output_dir": str(output), "num_workers": 0, **small.overrides}
    return {**given, **TRAINING, **small.training} if training else given


def workflow(name: str, configs: str, data: Path, output: Path, **more: Any) -> ConfigWorkflow:
    """``configs``: names of the config files, separated by blanks."""
    names = configs.split()
    training = names[0] == "train"
    return workflows.workflow(ZOO / name, names, **{**overrides(name, data, output, training), **more})


def run(name: str, configs: str, data: Path, output: Path, **more: Any) -> ConfigWorkflow:
    flow = workflow(name, configs, data, output, **more)
    flow.initialize()
    flow.run()
    return flow


def train(name: str, data: Path, output: Path, epochs: int, configs: str = "train", **more: Any) -> ConfigWorkflow:
    return run(name, configs, data, output, **{"train#trainer#max_epochs": epochs, **more})


def state(output: Path) -> dict[str, Any]:
    """What a training run would resume from."""
    return torch.load(output / "checkpoints" / "last.pt", weights_only=True)


def weights(output: Path) -> str:
    return str(output / "checkpoints" / "model.pt")
