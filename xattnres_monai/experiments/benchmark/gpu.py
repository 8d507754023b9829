"""The command ``gpu``: all that is to be known of a GPU, measured piece by piece and written to files."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from xattnres_monai.experiments.benchmark.figures import machine
from xattnres_monai.experiments.benchmark.gpu_summary import summary
from xattnres_monai.experiments.benchmark.job import Job
from xattnres_monai.experiments.benchmark.pieces import PIECES
from xattnres_monai.utils.atomic_write import replace_text
from xattnres_monai.utils.errors import one_line

__all__ = ["gpu", "run_piece"]

LIMIT = 8 * 60  # seconds of a piece: machines are lent for ten minutes at a time
GRACE = 40  # seconds that a piece has to end when it is told to: torchrun gives its processes 30
FINISHED = "finished"


def gpu(
    pieces: str | Sequence[str] = tuple(PIECES), output: str = "gpu", device: str = "cuda", tiny: bool = False
) -> str:
    """Measure a GPU in pieces of at most eight minutes.

    Each piece runs in a process of its own and writes its figures into ``<piece>.json`` as it goes, and what it prints
    into ``<piece>.log``. A piece that is finished is not run again; one that fails or is cut off stops no other.

    Args:
        pieces: of eager_fp32, eager_bf16, compiled_fp32, compiled_bf16, acdc_epoch, swin_epoch, compile_key, ddp and
            resume; by default all.
        output: folder of the files; ``gpu.md`` sums them up.
        device: ``cuda``; ``cpu`` tries the command out.
        tiny: small networks, volumes and epochs, for minutes on a CPU.

    Returns:
        Where the summary lies.

    Raises:
        ValueError: for an unknown piece, a device that is absent, or a folder of another machine or size.
        RuntimeError: when pieces failed or were cut off. The others are finished and stay.
    """
    names = (pieces,) if isinstance(pieces, str) else tuple(pieces)
    unknown = [name for name in names if name not in PIECES]
    if unknown:
        raise ValueError(f"got the pieces {', '.join(unknown)}, expected some of {', '.join(PIECES)}")
    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise ValueError(f"got device={device}, expected cuda on a machine with a GPU that torch sees, or cpu")
    folder = Path(output).resolve()
    state = _state(folder, {"machine": machine(device), "device": device, "tiny": tiny})
    outcomes = state["pieces"]
    for name in tqdm(names, desc="gpu", unit="piece", disable=None):
        if outcomes.get(name, {}).get("outcome") == FINISHED:
            continue
        job = Job(name, folder, device, tiny)
        try:
            outcomes[name] = run_piece(job, LIMIT)
            tqdm.write(f"{name}: {outcomes[name]['outcome']} ({job.log})")
        finally:
            replace_text(folder / "pieces.json", json.dumps(state, indent=2) + "\n")
            replace_text(folder / "gpu.md", summary(folder, state))
    missing = [f"{name} {outcomes[name]['outcome']}" for name in names if outcomes[name]["outcome"] != FINISHED]
    if missing:
        raise RuntimeError(
            f"{len(missing)} of {len(names)} pieces did not finish: {'; '.join(missing)}; more is in "
            f"{folder}/<piece>.log; run again for these alone"
        )
    return f"written to {folder}: gpu.md"


def _state(folder: Path, setting: dict[str, Any]) -> dict[str, Any]:
    """What is known of the pieces in a folder."""
    path = folder / "pieces.json"
    state = json.loads(path.read_text()) if path.exists() else {**setting, "pieces": {}}
    if {key: state[key] for key in setting} != setting:
        raise ValueError(f"{path} is of another machine, device or size; give another --output")
    return state


def run_piece(job: Job, limit: float) -> dict[str, Any]:
    """Run a piece in a process of its own.

    Args:
        job: the piece.
        limit: seconds after which it is cut off.

    Returns:
        Its ``outcome`` and the ``seconds`` it took.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    process = get_context("spawn").Process(target=_run, args=(job,))
    process.start()
    try:
        process.join(limit)
        status = process.exitcode
    finally:
        _end(process)
    outcomes = {0: FINISHED, None: f"cut off after {limit:.0f} seconds"}
    outcome = outcomes[status] if status in outcomes else f"failed: {_last_line(job.log)}"
    return {"outcome": outcome, "seconds": round(time.monotonic() - start)}


def _run(job: Job) -> None:
    os.setsid()  # so that all that it starts can be ended with it
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that what it has started ends too
    with job.log.open("a") as log:
        os.dup2(log.fileno(), 1)  # of this process, C++ included
        os.dup2(log.fileno(), 2)
    try:
        PIECES[job.piece].run(job)
    except RuntimeError as error:
        sys.exit(one_line(error))


def _last_line(log: Path) -> str:
    lines = log.read_text().splitlines() if log.exists() else []
    return lines[-1] if lines else "no message"


def _end(process: SpawnProcess) -> None:
    """End a piece and what it left behind."""
    process.terminate()
    process.join(GRACE)
    with suppress(ProcessLookupError):
        os.killpg(process.pid or 0, signal.SIGKILL)
    process.join()
