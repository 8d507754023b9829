"""Bundles by MONAI's own commands, each in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.bundles.runs import SMALL, ZOO, overrides, state, weights, workflow
from tests.data.layouts import write_acdc

NAME = "msd_hippocampus_mri_segmentation"


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


TORCHRUN = f"{sys.executable} -m torch.distributed.run --standalone --nproc_per_node 2 -m monai.bundle".split()


def two_processes(tmp_path: Path, epochs: int) -> dict[str, Any]:
    """Options of a distributed training on CPUs, over gloo."""
    data = SMALL[NAME].write(tmp_path / "data")
    given = options(NAME, data, tmp_path / "output", "train", "multi_gpu_train")
    return {**given, "--train#trainer#max_epochs": epochs, "--device": "cpu", "--batch_size": 2}


def test_two_processes_train_one_network(tmp_path):
    """The checkpoint is one process's, is loaded without a prefix, and was validated as one process would have."""
    keep = "$torch.save(@network_def.state_dict(), str(@rank) + '.pt')"
    given = {**two_processes(tmp_path, epochs=2), "--finalize": [keep, "$torch.distributed.destroy_process_group()"]}
    call(TORCHRUN, given, tmp_path)
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(one[name], other[name]) for name in one)
    trained = state(tmp_path / "output")
    assert trained["trainer"]["iteration"] == 4  # 8 cases in 2 processes of batch 2
    assert sorted(path.name for path in (tmp_path / "output" / "checkpoints").iterdir()) == [
        "last.pt",
        "model.pt",
        "previous.pt",
    ]
    events = list((tmp_path / "output" / "tensorboard").iterdir())
    assert len(events) == 2, "rank 0 writes, one file for training and one for validation"
    flow = workflow(NAME, "train", tmp_path / "data", tmp_path / "output")
    flow.initialize()
    network = flow.parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(weights(tmp_path / "output"), weights_only=True))
    evaluator = flow.parser.get_parsed_content("validate#evaluator")
    evaluator.run()
    assert evaluator.state.metrics["val_mean_dice"] == pytest.approx(trained["best_metric"], abs=1e-5)


@contextmanager
def running(given: dict[str, Any], folder: Path, **pipes: int) -> Iterator[subprocess.Popen[str]]:
    """A distributed training without end, from its first checkpoint on."""
    arguments = [str(part) for option in given.items() for part in option]
    with subprocess.Popen([*TORCHRUN, "run", *arguments], cwd=folder, text=True, **pipes) as job:
        try:
            end = time.monotonic() + 120
            while not (folder / "output" / "checkpoints" / "last.pt").exists():
                assert job.poll() is None and time.monotonic() < end
                time.sleep(0.2)
            yield job
        finally:
            job.kill()  # where it has not ended: else the test would wait for it


@pytest.mark.slow
def test_a_killed_process_ends_the_others_and_the_run_resumes(tmp_path):
    given = two_processes(tmp_path, epochs=1000)
    with running(given, tmp_path, stderr=subprocess.PIPE) as job:
        children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
        os.kill(int(children[1]), signal.SIGKILL)
        _, errors = job.communicate(timeout=120)
    assert job.returncode != 0 and "Signal 9 (SIGKILL)" in errors
    epochs = state(tmp_path / "output")["trainer"]["iteration"] // 2
    resumed = call(TORCHRUN, {**given, "--train#trainer#max_epochs": epochs + 1}, tmp_path)
    assert f"resumed after epoch {epochs} of {epochs + 1}" in resumed


def test_a_sigterm_ends_both_processes_after_the_same_step_and_saves(tmp_path):
    given = two_processes(tmp_path, epochs=1000)
    with running(given, tmp_path, stdout=subprocess.PIPE) as job:
        job.send_signal(signal.SIGTERM)
        printed, _ = job.communicate(timeout=120)
    assert job.returncode != 0 and "SIGTERM: ended after step" in printed
    steps = int(re.findall(r"SIGTERM: ended after step (\d+)", printed)[-1])
    assert state(tmp_path / "output")["trainer"]["iteration"] == steps
    epochs = steps // 2 + 1
    resumed = call(TORCHRUN, {**given, "--train#trainer#max_epochs": epochs}, tmp_path)
    assert f"resumed after epoch {steps // 2}" in resumed
    assert state(tmp_path / "output")["trainer"]["iteration"] == 2 * epochs
