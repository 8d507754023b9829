"""The command ``gpu``: it runs all measurements on a GPU, piece by piece, and writes the results to files."""

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

LIMIT = 8 * 60  # seconds per piece, because machines are lent for ten minutes at a time
GRACE = 40  # seconds that a piece has to end after SIGTERM; torchrun gives its own processes 30
FINISHED = "finished"


def gpu(
    pieces: str | Sequence[str] = tuple(PIECES), output: str = "gpu", device: str = "cuda", tiny: bool = False
) -> str:
    """Measure a GPU in pieces of at most eight minutes.

    Each piece runs in its own process. It writes its results into ``<piece>.json`` as it goes, and its output into
    ``<piece>.log``. A piece that fails or exceeds the time limit does not stop the others. Run the command again to
    repeat only the pieces that did not finish.

    Args:
        pieces: any of eager_fp32, eager_bf16, compiled_fp32, compiled_bf16, acdc_epoch, swin_epoch, compile_key, ddp
            and resume; by default all.
        output: folder for the files; ``gpu.md`` in it summarises them.
        device: ``cuda``, or ``cpu`` to try out the command.
        tiny: use small networks, volumes and epochs, so that the command takes minutes on a CPU.

    Returns:
        The path of the summary.

    Raises:
        ValueError: for an unknown piece, a missing device, or a folder with results of another machine or size.
        RuntimeError: when pieces failed or were stopped. The other pieces are finished and keep their results.
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
            f"{len(missing)} of {len(names)} pieces did not finish: {'; '.join(missing)}; read "
            f"{folder}/<piece>.log, and run the command again, which repeats only these"
        )
    return f"written to {folder}: gpu.md"


def _state(folder: Path, setting: dict[str, Any]) -> dict[str, Any]:
    """Read the outcomes of the pieces in a folder."""
    path = folder / "pieces.json"
    state = json.loads(path.read_text()) if path.exists() else {**setting, "pieces": {}}
    if {key: state[key] for key in setting} != setting:
        raise ValueError(f"{path} belongs to another machine, device or size; give another --output")
    return state


def run_piece(job: Job, limit: float) -> dict[str, Any]:
    """Run a piece in its own process.

    Args:
        job: the piece.
        limit: seconds after which the piece is stopped.

    Returns:
        The ``outcome`` of the piece and the ``seconds`` that it took.
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
    os.setsid()  # so that _end can kill this process and all its children as one group
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # an orderly exit ends child processes too
    with job.log.open("a") as log:
        os.dup2(log.fileno(), 1)  # unlike a new sys.stdout, this includes output of C++ code
        os.dup2(log.fileno(), 2)
    try:
        PIECES[job.piece].run(job)
    except RuntimeError as error:
        sys.exit(one_line(error))


def _last_line(log: Path) -> str:
    lines = log.read_text().splitlines() if log.exists() else []
    return lines[-1] if lines else "no message"


def _end(process: SpawnProcess) -> None:
    """End a piece and any processes that it left behind."""
    process.terminate()
    process.join(GRACE)
    with suppress(ProcessLookupError):
        os.killpg(process.pid or 0, signal.SIGKILL)
    process.join()
