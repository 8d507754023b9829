"""Long runs keep their memory and their open files: nothing of a case or an epoch stays behind."""

from __future__ import annotations

import os
from pathlib import Path
from statistics import median

import pytest
import torch
from ignite.engine import Engine, Events

from tests.bundles.runs import TRAINING, workflow
from tests.data.layouts import write_msd, write_nifti

pytestmark = pytest.mark.slow
NAME = "msd_hippocampus_mri_segmentation"


def watch(engine: Engine, event: Events) -> list[tuple[int, int]]:
    """Resident memory in bytes and number of open files, at every such event."""
    found: list[tuple[int, int]] = []

    def measure() -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        found.append((pages * os.sysconf("SC_PAGE_SIZE"), len(list(Path("/proc/self/fd").iterdir()))))

    engine.add_event_handler(event, measure)
    return found


def assert_flat(found: list[tuple[int, int]], first: int) -> None:
    """Growth from the ``first`` to the last; and the same files."""
    memory, files = zip(*found)
    growth = memory[-1] / memory[first - 1] - 1
    megabytes = [round(value / 1e6) for value in memory]
    print(f"{megabytes[first - 1]} MB after {first}, {megabytes[-1]} MB after {len(found)}; {files[-1]} open files")
    assert growth < 0.05, megabytes
    # workers that are about to end hold some
    assert median(files[-first:]) <= median(files[:first]) + 2, files


@pytest.mark.parametrize("workers", [0, 2])
def test_inference_of_200_volumes(tmp_path, workers):
    images = [tmp_path / "images" / f"case_{number:03d}.nii.gz" for number in range(200)]
    for number, path in enumerate(images):
        write_nifti(path, None, 2, number, size=(40 + number % 7, 56, 40))
    checkpoint = tmp_path / "model.pt"
    given = {"images": list(map(str, images)), "num_workers": workers, "checkpoint": str(checkpoint)}
    flow = workflow(NAME, "inference", tmp_path, tmp_path / "output", **given)
    torch.save(flow.parser.get_parsed_content("network_def").state_dict(), checkpoint)
    flow.initialize()
    found = watch(flow.parser.get_parsed_content("evaluator"), Events.ITERATION_COMPLETED)
    flow.run()
    assert len(list((tmp_path / "output" / "predictions").iterdir())) == len(found) == 200
    assert_flat(found, first=20)


@pytest.mark.parametrize("workers", [0, 2])
def test_training_of_50_epochs(tmp_path, workers):
    data = write_msd(tmp_path / "data", cases=5)
    given = {**TRAINING, "train#trainer#max_epochs": 50, "num_workers": workers}
    flow = workflow(NAME, "train", data, tmp_path / "output", **given)
    flow.initialize()
    found = watch(flow.parser.get_parsed_content("train#trainer"), Events.EPOCH_COMPLETED)
    flow.run()
    assert len(found) == 50
    assert_flat(found, first=10)
