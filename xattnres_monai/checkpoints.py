"""Checkpoints of a training run: the full state to resume from, and the best network to deploy."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import torch
from ignite import distributed
from ignite.engine import Engine, Events
from ignite.handlers import DiskSaver
from torch import nn

__all__ = ["ResumableCheckpoint"]

logger = logging.getLogger(__name__)


class ResumableCheckpoint:
    """MONAI handler of a trainer that resumes the run it finds and keeps the run that it sees.

    After every epoch ``last.pt`` gets the state of network, optimizer, scheduler, trainer and the best metric so far;
    when a run starts and finds one, it goes on from there (once: a trainer that is run again, as in federated learning,
    starts from the weights that it has then). One that it cannot go on from, of another network or of more
    epochs than the run is to have, is kept under its date, with a warning, and the run starts anew.

    When a validation is the best so far (by the evaluator's key metric), ``model.pt`` gets the network's state dict
    alone: the form that MONAI Label, ``ckpt_export`` of ``monai.bundle`` and ``CheckpointLoader`` read. Files are
    replaced whole or not at all.

    Args:
        directory: folder of both files; made when the first is written.
        network: the network in training.
        optimizer: its optimizer.
        lr_scheduler: its learning-rate scheduler.
        evaluator: MONAI evaluator of the validation.
    """

    def __init__(
        self,
        directory: str | Path,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        lr_scheduler: torch.optim.lr_scheduler.LRScheduler,
        evaluator: Engine,
    ) -> None:
        self.directory = Path(directory)
        self.network = network
        self.evaluator = evaluator
        self.members = {"network": network, "optimizer": optimizer, "lr_scheduler": lr_scheduler}

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer; validation has to be attached before, so that it is in the state that is saved."""
        engine.add_event_handler(Events.STARTED, self._resume)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._save_last)
        self.evaluator.add_event_handler(Events.EPOCH_COMPLETED, self._save_best)

    def _members(self, trainer: Engine) -> dict[str, Any]:
        scaler = {} if trainer.scaler is None else {"scaler": trainer.scaler}
        return {**self.members, "trainer": trainer, **scaler}

    def _resume(self, trainer: Engine) -> None:
        path = self.directory / "last.pt"
        if trainer.state.iteration > 0 or not path.exists():
            return
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        max_epochs = trainer.state.max_epochs
        if reason := self._other_run(checkpoint, max_epochs):
            distributed.barrier()  # every process has read it
            if distributed.get_rank() == 0:
                self._set_aside(reason)
            return
        for name, member in self._members(trainer).items():
            member.load_state_dict(checkpoint[name])
        trainer.state.max_epochs = max_epochs
        self.evaluator.state.best_metric = checkpoint["best_metric"]
        self.evaluator.state.best_metric_epoch = checkpoint["best_metric_epoch"]
        logger.info(f"resumed after epoch {trainer.state.epoch} of {max_epochs} from {path}")

    def _other_run(self, checkpoint: dict[str, Any], max_epochs: int) -> str:
        """Why the checkpoint is none to go on from; empty if it is one."""
        shapes = [
            {name: tensor.shape for name, tensor in state.items()}
            for state in (checkpoint["network"], self.network.state_dict())
        ]
        epochs = checkpoint["trainer"]["iteration"] // checkpoint["trainer"]["epoch_length"]
        if shapes[0] != shapes[1]:
            return "is of another network"
        return f"is after {epochs} epochs, more than max_epochs={max_epochs}" if epochs > max_epochs else ""

    def _set_aside(self, reason: str) -> None:
        last = self.directory / "last.pt"
        date = time.strftime("%Y%m%d-%H%M%S", time.localtime(last.stat().st_mtime))
        for path in (last, self.directory / "model.pt"):
            if path.exists():
                path.rename(path.with_stem(f"{path.stem}-{date}"))
        logger.warning(
            f"{last} {reason}: kept as last-{date}.pt, the run starts anew; give it an output_dir of its own"
        )

    def _save_last(self, trainer: Engine) -> None:
        state = {name: member.state_dict() for name, member in self._members(trainer).items()}
        best = {
            "best_metric": self.evaluator.state.best_metric,
            "best_metric_epoch": self.evaluator.state.best_metric_epoch,
        }
        self._write({**state, **best}, "last.pt")

    def _save_best(self, evaluator: Engine) -> None:
        if evaluator.state.best_metric_epoch == evaluator.state.epoch:
            self._write(self.network.state_dict(), "model.pt")

    def _write(self, state: dict[str, Any], name: str) -> None:
        # ignite's saver writes into a temporary file and renames it, on rank 0 only
        DiskSaver(self.directory, require_empty=False)(state, name)
