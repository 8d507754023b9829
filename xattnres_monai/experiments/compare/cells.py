"""Cells of a comparison: one training and evaluation of a bundle each, in a process and a folder of its own."""

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

MACHINE = ("device", "num_workers", "stitching_device")  # keys of the config that change nothing in the result


@dataclass(frozen=True)
class Cell:
    """One variant of a bundle with one seed.

    Args:
        bundle: the bundle's folder.
        overlays: config files of ``bundle/configs`` that make the variant.
        variant: its name.
        seed: of initial weights, augmentation and the order of cases.
        output: folder of the comparison; the cell's own lies in it.
        epochs: of the training.
        overrides: other keys of the config, with their values.
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
        return (self.folder / "evaluation" / "summary.md").exists()  # the last file that evaluate.json writes

    def claim(self) -> None:
        """Note the cell's settings in its folder, or raise a ``ValueError`` if it was trained with other ones."""
        path = self.folder / "cell.json"
        settings = {
            "bundle": self.bundle.name,
            "overlays": [*self.overlays],
            "epochs": self.epochs,
            "overrides": {key: value for key, value in self.overrides.items() if key not in MACHINE},
        }
        settings = json.loads(json.dumps(settings))  # as they will be read again, where a tuple is a list
        if (self.folder / "checkpoints").exists() and json.loads(path.read_text()) != settings:
            raise ValueError(f"{path} is of a cell with other settings than {settings}; give another --output")
        self.folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings))

    def workflow(self, *last: str, **more: Any) -> ConfigWorkflow:
        """The workflow of ``train.json``, the variant's overlays and then ``last``."""
        settings = {"output_dir": str(self.folder), "seed": self.seed, "train#trainer#max_epochs": self.epochs}
        return workflow(self.bundle, ["train", *self.overlays, *last], **settings, **self.overrides, **more)


def run_cells(cells: Sequence[Cell], jobs: int) -> list[Cell]:
    """Train and evaluate the cells that are not finished; one that was broken off goes on from its last epoch.

    Args:
        cells: all of them.
        jobs: number of cells that run at once; they share the processor's cores, and one after another the GPUs.

    Returns:
        The cells that failed. Why is in their ``log.txt``.
    """
    context = get_context("spawn")
    epochs = context.Value("i", sum(cell.epochs for cell in cells if cell.finished))
    threads = max(1, torch.get_num_threads() // jobs)
    waiting = [cell for cell in cells if not cell.finished]
    running: dict[int, tuple[Cell, SpawnProcess]] = {}  # by place, of which there are as many as jobs
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
    return failed


def _device(cell: Cell, place: int) -> dict[str, str]:
    """The key of the config that gives a cell one of several GPUs; empty without several, or with a device given."""
    gpus = 0 if "device" in cell.overrides else torch.cuda.device_count()
    return {"device": f"cuda:{place % gpus}"} if gpus > 1 else {}


def _run(cell: Cell, threads: int, device: dict[str, str], epochs: Any) -> None:
    with (cell.folder / "log.txt").open("a") as log:
        os.dup2(log.fileno(), 1)  # of this process, C++ included
        os.dup2(log.fileno(), 2)
    torch.set_num_threads(threads)
    training = cell.workflow(**device)
    training.initialize()

    def add(number: int) -> None:
        with epochs.get_lock():
            epochs.value += number

    # attached last: the bundle's handlers have resumed when the first is called
    training.trainer.add_event_handler(Events.STARTED, lambda trainer: add(trainer.state.epoch))
    training.trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _: add(1))
    training.run()
    evaluation = cell.workflow("evaluate", checkpoint=str(cell.folder / "checkpoints" / "model.pt"), **device)
    evaluation.initialize()
    evaluation.run()
