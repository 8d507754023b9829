"""The pieces of the command ``gpu``. Each piece writes its results into its own file."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from ignite.engine import Events
from torch.distributed import run as torchrun

from xattnres_monai.bundles.workflows import workflow
from xattnres_monai.experiments.benchmark.figures import Figures
from xattnres_monai.experiments.benchmark.job import ACDC, BTCV, Attempts, Job, bundle_folder
from xattnres_monai.experiments.benchmark.trainings import timed_inference, timed_training
from xattnres_monai.utils.checkpoint_files import read_checkpoint

__all__ = ["PIECES", "Piece"]

VARIANTS = ("baseline", "xattnres")


@dataclass(frozen=True)
class Piece:
    """One of the measurements.

    Args:
        title: title of the piece in the summary.
        run: function that does the measurement, or raises a ``RuntimeError`` that says what failed.
    """

    title: str
    run: Callable[[Job], None]


def costs(job: Job, dtype: str, compiled: bool) -> None:
    """Run the benchmark of all cases. It resumes after an interruption."""
    figures = Figures(job.figures, job.scale.repeats, job.device, dtype, compiled, options={})
    attempts = Attempts()
    for case in job.scale.cases:
        with attempts.part(str(case)):
            figures.measure(case)
            figures.count(case)
    attempts.end()


def acdc_epoch(job: Job) -> None:
    """Train ACDC's bundle and plain MONAI for two epochs each. Only the first epoch includes the warm-up."""
    data, attempts = job.data(ACDC), Attempts()
    for variant in VARIANTS:
        with attempts.part(variant):
            timed_training(job, variant, ACDC, data, 2, variant)
    attempts.end()


def swin_epoch(job: Job) -> None:
    """Train BTCV's bundle and plain MONAI for a few steps, then infer with stitching on the GPU and on the CPU."""
    data, attempts = job.data(BTCV), Attempts()
    for variant in VARIANTS:
        with attempts.part(variant):
            timed_training(job, variant, BTCV, data, job.scale.epochs, variant)
    checkpoint = job.run_folder("xattnres") / "checkpoints" / "model.pt"
    images = sorted((data / "Training" / "img").iterdir())[-2:]
    for stitching in dict.fromkeys((job.device, "cpu")):
        row = f"inference, stitching on {stitching}"
        with attempts.part(row):
            timed_inference(job, row, BTCV, images, checkpoint, stitching)
    attempts.end()


def compile_key(job: Job) -> None:
    """Train bundles with and without the key ``compile``."""
    attempts = Attempts()
    for bundle in job.scale.compiled:
        data = job.data(bundle, few=True)
        for compiled in (False, True):
            row = f"{bundle}, compile {compiled}"
            with attempts.part(row):
                timed_training(job, row, bundle, data, job.scale.epochs, compile=compiled)
    attempts.end()


def ddp(job: Job) -> None:
    """Train with one process under torchrun, in the way that ``docs/distributed.md`` starts several."""
    root, output, data, epochs = bundle_folder(ACDC), job.fresh_folder("ddp"), job.data(ACDC, few=True), 2
    configs = [str(root / "configs" / f"{name}.json") for name in ("train", "multi_gpu_train")]
    given = {"bundle_root": root, "config_file": configs, "dataset_dir": data, "output_dir": output}
    given |= {"train#trainer#max_epochs": epochs, **job.overrides(ACDC)}
    options = [str(part) for key, value in given.items() for part in (f"--{key}", value)]
    start = time.perf_counter()
    torchrun.main(["--standalone", "--nproc_per_node", "1", "-m", "monai.bundle", "run", *options])
    trained = read_checkpoint(output / "checkpoints" / "last.pt")["trainer"]
    backend = "gloo" if job.device == "cpu" else "nccl"
    job.note(backend, {"steps": trained["iteration"], "seconds in all": time.perf_counter() - start})


def resume(job: Job) -> None:
    """Interrupt a training by SIGTERM, resume it, and compare its weights with those of an uninterrupted training.

    A second uninterrupted training shows how much two equal trainings differ anyway: a GPU may add numbers in any
    order, so trainings are not bit for bit the same.
    """
    outputs = {name: job.fresh_folder(name) for name in ("whole", "whole again", "resumed")}
    for name in ("whole", "whole again"):
        train(job, outputs[name])
    statuses = [_train_apart(job, outputs["resumed"], told_to_end) for told_to_end in (True, False)]
    if statuses != [128 + signal.SIGTERM, 0]:
        raise RuntimeError(f"got the exit statuses {statuses}, expected 143 after SIGTERM and then 0; read the log")
    whole, again, resumed = (read_checkpoint(output / "checkpoints" / "last.pt") for output in outputs.values())
    for row, other in (("resumed", resumed), ("whole again", again)):
        differences = [(tensor - other["network"][name]).abs().max() for name, tensor in whole["network"].items()]
        difference = float(max(differences))
        figures = {"steps": other["trainer"]["iteration"], "largest difference of a weight": difference}
        job.note(row, {**figures, "bit for bit": difference == 0})


def train(job: Job, output: Path, told_to_end: bool = False) -> None:
    """Train ACDC's bundle on few patients for three epochs; with ``told_to_end``, send a SIGTERM in the second."""
    given: dict[str, Any] = {"dataset_dir": str(job.data(ACDC, few=True)), "output_dir": str(output)}
    given |= {"train#trainer#max_epochs": 3, **job.overrides(ACDC)}
    training = workflow(bundle_folder(ACDC), ["train"], **given)
    training.initialize()
    if told_to_end:
        began = Events.EPOCH_STARTED(once=2)
        training.trainer.add_event_handler(began, lambda: os.kill(os.getpid(), signal.SIGTERM))
    training.run()


def _train_apart(job: Job, output: Path, told_to_end: bool) -> int | None:
    """Train in a separate process and return its exit status."""
    process = get_context("spawn").Process(target=train, args=(job, output, told_to_end))
    process.start()
    process.join()
    return process.exitcode


PIECES = {
    "eager_fp32": Piece("Cost, eager, float32", partial(costs, dtype="float32", compiled=False)),
    "eager_bf16": Piece("Cost, eager, bfloat16", partial(costs, dtype="bfloat16", compiled=False)),
    "compiled_fp32": Piece("Cost, compiled, float32", partial(costs, dtype="float32", compiled=True)),
    "compiled_bf16": Piece("Cost, compiled, bfloat16", partial(costs, dtype="bfloat16", compiled=True)),
    "acdc_epoch": Piece("Training of ACDC's bundle", acdc_epoch),
    "swin_epoch": Piece("Training and inference of BTCV's bundle, a SwinUNETR", swin_epoch),
    "compile_key": Piece("Bundles with the key compile", compile_key),
    "ddp": Piece("DistributedDataParallel with one process", ddp),
    "resume": Piece("A training that is interrupted and resumed", resume),
}
