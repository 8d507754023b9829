"""Bundles by MONAI's own commands, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from tests.bundle_runs import SMALL, ZOO, overrides, run, state, weights
from tests.datasets.layouts import write_acdc
from xattnres_monai.report import read_metric


def call(command: list[Any], options: dict[str, Any], folder: Path) -> str:
    arguments = [str(part) for option in options.items() for part in option]
    result = subprocess.run([*command, "run", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    return result.stdout


def options(name: str, data: Path, output: Path, *configs: str) -> dict[str, Any]:
    files = [str(ZOO / name / "configs" / f"{config}.json") for config in configs]
    small = {f"--{key}": value for key, value in overrides(name, data, output, training=True).items()}
    return {"--bundle_root": ZOO / name, "--config_file": files, **small}


def test_the_command_line_trains_and_evaluates_a_variant(tmp_path):
    name, data = "acdc_mri_segmentation", write_acdc(tmp_path / "ACDC")
    monai = [sys.executable, "-m", "monai.bundle"]
    given = options(name, data, tmp_path / "output", "train", "variant_baseline")
    call(monai, {**given, "--train#trainer#max_epochs": 1}, tmp_path)
    checkpoint = weights(tmp_path / "output")
    assert not any(key.startswith("xattnres.") for key in torch.load(checkpoint, weights_only=True))
    given = options(name, data, tmp_path / "output", "train", "variant_baseline", "evaluate")
    assert "| Dice" in call(monai, {**given, "--checkpoint": checkpoint}, tmp_path)


def test_two_processes_train_one_network(tmp_path):
    """By torchrun, over gloo: the checkpoint is one process's, and is loaded without a prefix."""
    name = "msd_hippocampus_mri_segmentation"
    data = SMALL[name].write(tmp_path / "data")
    torchrun = f"{sys.executable} -m torch.distributed.run --standalone --nproc_per_node 2 -m monai.bundle".split()
    given = options(name, data, tmp_path / "output", "train", "multi_gpu_train")
    call(torchrun, {**given, "--train#trainer#max_epochs": 2, "--device": "cpu", "--batch_size": 2}, tmp_path)
    assert state(tmp_path / "output")["trainer"]["iteration"] == 4  # 8 cases in 2 processes of batch 2
    assert sorted(path.name for path in (tmp_path / "output" / "checkpoints").iterdir()) == ["last.pt", "model.pt"]
    checkpoint = weights(tmp_path / "output")
    run(name, "train evaluate", data, tmp_path / "output", checkpoint=checkpoint)
    _, dice = read_metric(tmp_path / "output" / "evaluation", "val_mean_dice")
    assert len(dice) == 2
