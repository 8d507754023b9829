"""Run the cells of a comparison. A cell is one training and evaluation of a bundle, in its own process and folder."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from tqdm import tqdm

from xattnres_monai.bundles.workflows import workflow

__all__ = ["Cell", "run_cells"]

MACHINE = ("device", "num_workers", "stitching_device")  # config keys that do not change the result


@dataclass(frozen=True)
class Cell:
    """One variant of a bundle with one seed.

    Args:
        bundle: the bundle's folder.
        overlays: names of the config files in ``bundle/configs`` that turn the bundle into the variant.
        variant: name of the variant.
        seed: seed of the initial weights, the augmentation and the order of cases.
        output: folder of the comparison; the cell's folder lies in it.
        epochs: number of training epochs.
        overrides: values of other config keys.
    """

    bundle: Path
    overlays: tuple[str, ...]
    variant: str
    seed: int
    output: Path
    epochs: int
    overrides: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.variant}_seed{self.seed}"

    @property
    def folder(self) -> Path:
        return self.output / self.name

    @property
    def finished(self) -> bool:
        return (self.folder / "evaluation" / "summary.md").exists()  # evaluate.json writes this file last

    def claim(self) -> None:
        """Write the settings into the cell's folder, or raise a ``ValueError`` if it was trained with others."""
        path = self.folder / "cell.json"
        settings = {
            "bundle": self.bundle.name,
            "overlays": [*self.overlays],
            "epochs": self.epochs,
            "overrides": {key: value for key, value in self.overrides.items() if key not in MACHINE},
        }
        settings = json.loads(json.dumps(settings))  # the form that will be read back: JSON turns tuples into lists
        if (self.folder / "checkpoints").exists() and json.loads(path.read_text()) != settings:
            raise ValueError(f"{path} belongs to a cell with other settings than {settings}; give another --output")
        self.folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings))

    def workflow(self, *last: str, **more: Any) -> ConfigWorkflow:
        """Build the workflow from ``train.json``, then the variant's overlays, then ``last``."""
        settings = {"output_dir": str(self.folder), "seed": self.seed, "train#trainer#max_epochs": self.epochs}
        return workflow(self.bundle, ["train", *self.overlays, *last], **settings, **self.overrides, **more)


def run_cells(cells: Sequence[Cell], jobs: int) -> list[Cell]:
    """Train and evaluate the cells that are not finished. An interrupted cell resumes after its last epoch.

    Args:
        cells: all cells of the comparison.
        jobs: number of cells that run at once. They share the CPU cores, and are assigned to the GPUs in turn.

    Returns:
        The cells that failed. Their ``log.txt`` says why.
    """
    context = get_context("spawn")
    epochs = context.Value("i", sum(cell.epochs for cell in cells if cell.finished))
    threads = max(1, torch.get_num_threads() // jobs)
    waiting = [cell for cell in cells if not cell.finished]
    running: dict[int, tuple[Cell, SpawnProcess]] = {}  # by slot, numbered from 0 to jobs - 1
    failed = []
    with tqdm(total=sum(cell.epochs for cell in cells), desc="compare", unit="epoch", disable=None) as progress:
        try:
            while waiting or running:
                free = [place for place in range(jobs) if place not in running]
                for place in free[: len(waiting)]:
                    process = context.Process(
                        target=_run, args=(waiting[0], threads, _device(waiting[0], place), epochs)
                    )
                    process.start()
                    running[place] = waiting.pop(0), process
                next(iter(running.values()))[1].join(timeout=0.5)
                ended = {place: entry for place, entry in running.items() if entry[1].exitcode is not None}
                failed += [cell for cell, process in ended.values() if process.exitcode]
                running = {place: entry for place, entry in running.items() if place not in ended}
                progress.set_postfix_str(", ".join(cell.name for cell, _ in running.values()))
                progress.update(epochs.value - progress.n)
        finally:
            for _, process in running.values():
                process.terminate()
    return [cell for cell in cells if cell in failed]  # in their own order, whichever failed first


def _device(cell: Cell, place: int) -> dict[str, str]:
    """Return the config key that assigns one of several GPUs; empty without several GPUs or if a device is given."""
    gpus = 0 if "device" in cell.overrides else torch.cuda.device_count()
    return {"device": f"cuda:{place % gpus}"} if gpus > 1 else {}


def _run(cell: Cell, threads: int, device: dict[str, str], epochs: Any) -> None:
    with (cell.folder / "log.txt").open("a") as log:
        os.dup2(log.fileno(), 1)  # unlike a new sys.stdout, this includes output of C++ code
        os.dup2(log.fileno(), 2)
    torch.set_num_threads(threads)
    training = cell.workflow(**device)
    training.initialize()

    def add(number: int) -> None:
        with epochs.get_lock():
            epochs.value += number

    # attached last, so that the bundle's handlers have resumed the training before the first of these is called
    training.trainer.add_event_handler(Events.STARTED, lambda trainer: add(trainer.state.epoch))
    training.trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _: add(1))
    training.run()
    evaluation = cell.workflow("evaluate", checkpoint=str(cell.folder / "checkpoints" / "model.pt"), **device)
    evaluation.initialize()
    evaluation.run()
