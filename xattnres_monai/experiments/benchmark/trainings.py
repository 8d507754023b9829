"""Measure time and memory of a bundle's training and inference, run by MONAI's own workflows."""

from __future__ import annotations

import gc
import math
import time
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import Timer
from monai.bundle import ConfigParser
from monai.engines.utils import IterationEvents

from xattnres_monai.bundles.workflows import overlays, workflow
from xattnres_monai.experiments.benchmark.job import ACDC, BTCV, Job, bundle_folder
from xattnres_monai.experiments.benchmark.measure import MEGABYTE, peak_bytes, reset_peak

__all__ = ["timed_inference", "timed_training"]

REAL_CASES = {ACDC: (140, 20), BTCV: (24, 6)}  # training and validation cases of the published data sets


def timed_training(
    job: Job, row: str, bundle: str, data: Path, epochs: int, variant: str = "xattnres", **overrides: Any
) -> None:
    """Train a bundle, and write its figures into a row of the results after every epoch.

    Args:
        job: the piece.
        row: name of the row.
        bundle: name of the bundle.
        data: folder of the data set.
        epochs: number of epochs; only the last one is followed by a validation.
        variant: variant of the bundle.
        **overrides: values of other config keys.
    """
    gc.collect()  # frees an earlier training, whose engines and handlers refer to each other
    root, output = bundle_folder(bundle), str(job.fresh_folder(row))
    start = time.perf_counter()
    given = {"dataset_dir": str(data), "output_dir": output, "val_interval": epochs, **job.overrides(bundle)}
    training = workflow(
        root, ["train", *overlays(root, variant)], **{"train#trainer#max_epochs": epochs, **given, **overrides}
    )
    training.initialize()
    trainer, evaluator = training.trainer, training.evaluator  # this access preprocesses the cases
    job.note(row, {"seconds to start": time.perf_counter() - start})
    Watch(job, row, bundle).attach(trainer, evaluator)
    training.run()


class Watch:
    """Handlers that write the figures of a training. Attach them last, so that they run after an epoch's validation."""

    def __init__(self, job: Job, row: str, bundle: str) -> None:
        self.job, self.row, self.bundle = job, row, bundle
        self.waiting = Timer(average=True)
        self.memory = {"training": 0.0, "validation": 0.0}  # peaks in bytes

    def attach(self, trainer: Engine, evaluator: Engine) -> None:
        """Attach to both engines."""
        self.evaluator = evaluator
        self.waiting.attach(
            trainer,
            start=Events.EPOCH_STARTED,
            resume=Events.GET_BATCH_STARTED,
            pause=Events.GET_BATCH_COMPLETED,
            step=Events.GET_BATCH_COMPLETED,
        )
        evaluator.add_event_handler(Events.STARTED, self._peak, "training")
        evaluator.add_event_handler(Events.COMPLETED, self._peak, "validation")
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self._peak, "training")
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self._note)
        reset_peak(self.job.device)

    def _peak(self, engine: Engine, phase: str) -> None:
        """Record the peak memory since the end of the last phase."""
        self.memory[phase] = max(self.memory[phase], peak_bytes(self.job.device))
        reset_peak(self.job.device)

    def _note(self, trainer: Engine) -> None:
        # no synchronisation is needed: the bundle's handlers read the loss of every step, which waits for the GPU
        seconds = trainer.state.times[Events.EPOCH_COMPLETED.name] / trainer.state.epoch_length
        first = {"seconds a step, epoch 1": seconds} if trainer.state.epoch == 1 else {}
        validation = self.evaluator.state.times[Events.COMPLETED.name]  # still unset before the first validation
        figures = {
            **first,
            "seconds a step": seconds,
            "of it waiting for data": self.waiting.value(),
            "MB in training": self.memory["training"] / MEGABYTE,
        }
        if validation:
            a_case = validation / self.evaluator.state.epoch_length
            figures |= {
                "seconds a validation case": a_case,
                "MB in validation": self.memory["validation"] / MEGABYTE,
                "hours of the recipe": recipe_hours(self.bundle, seconds, a_case),
            }
        self.job.note(self.row, figures)


def recipe_hours(bundle: str, step: float, validation_case: float) -> float:
    """Estimate the hours of a bundle's whole training on the published data.

    Args:
        bundle: name of the bundle.
        step: seconds per training step.
        validation_case: seconds per validation case.
    """
    recipe = ConfigParser(ConfigParser.load_config_file(bundle_folder(bundle) / "configs" / "train.json"))
    training, validation = REAL_CASES[bundle]
    epochs = recipe["train#trainer#max_epochs"]
    steps = epochs * math.ceil(training / recipe["batch_size"])
    return (steps * step + epochs // recipe["val_interval"] * validation * validation_case) / 3600


def timed_inference(job: Job, row: str, bundle: str, images: list[Path], checkpoint: Path, stitching: str) -> None:
    """Segment volumes one after the other, and write the figures of the last one into a row of the results.

    Args:
        job: the piece.
        row: name of the row.
        bundle: name of the bundle.
        images: files of the volumes; all but the last serve as warm-up.
        checkpoint: file of the weights.
        stitching: device that stitches the windows together.
    """
    gc.collect()  # frees an earlier training, whose engines and handlers refer to each other
    reset_peak(job.device)
    inference = workflow(
        bundle_folder(bundle),
        ["inference"],
        images=[str(image) for image in images],
        checkpoint=str(checkpoint),
        stitching_device=stitching,
        output_dir=str(job.fresh_folder(row)),
        **job.overrides(bundle),
    )
    inference.initialize()
    evaluator = inference.evaluator
    windows, whole = Timer(), Timer()
    if job.device != "cpu":
        evaluator.add_event_handler(IterationEvents.FORWARD_COMPLETED, lambda _: torch.cuda.synchronize())
    windows.attach(evaluator, start=Events.ITERATION_STARTED, pause=IterationEvents.FORWARD_COMPLETED)
    whole.attach(evaluator, start=Events.ITERATION_STARTED, pause=Events.ITERATION_COMPLETED)
    inference.run()
    job.note(
        row,
        {
            "seconds of sliding windows": windows.value(),
            "seconds with all after": whole.value(),
            "MB": peak_bytes(job.device) / MEGABYTE,
        },
    )
