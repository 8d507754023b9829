"""Checkpoints of a training run: the full state to resume from, and the best network to deploy."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite import distributed
from ignite.engine import Engine, Events
from torch import nn

from xattnres_monai.utils.checkpoint_files import read_checkpoint, save_whole

__all__ = ["ResumableCheckpoint"]

LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "model.pt"
NUMBERS = ("run", "lr_steps", "best_metric", "best_metric_epoch")  # of a checkpoint, beside the states
logger = logging.getLogger(__name__)


class ResumableCheckpoint:
    """MONAI handler of a trainer that resumes the run it finds and keeps the run that it sees.

    After every epoch, and when the trainer is told to terminate, ``last.pt`` gets the state of network, optimizer,
    scaler, trainer and the best metric so far, and the one before it is ``previous.pt``; what is random depends on
    epoch and step (:mod:`.seeding`), and the learning rate on the number of steps that its schedule has made. So a run
    can go on with another learning rate (or weight decay), and with more epochs than it was to have. When a run starts
    and finds these files, it goes on from there (once: a trainer that is run again, as in federated learning, starts
    from the weights that it has then). A file that cannot be read, or that is of another network, kind of optimizer,
    seed, fold or number of steps an epoch, or after more epochs than the run is to have, is kept under its date, with a
    warning; where there is no other, the run starts anew.

    When a validation is the best so far (by the evaluator's key metric), ``model.pt`` gets the network's state dict
    alone: the form that MONAI Label, ``ckpt_export`` of ``monai.bundle`` and ``CheckpointLoader`` read. Files are
    replaced whole or not at all.

    Args:
        directory: folder of the files; made when the run starts.
        network: the network in training.
        optimizer: its optimizer.
        lr_scheduler: its learning-rate scheduler, of steps that depend on nothing but their number.
        evaluator: MONAI evaluator of the validation.
        run: what else tells the run from others, such as fold and seed, by name.

    Raises:
        FloatingPointError: when the network to be saved is not finite.
        OSError: when the folder cannot be made or a file not be written; those before it stay as they were.
    """

    def __init__(
        self,
        directory: str | Path,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        lr_scheduler: torch.optim.lr_scheduler.LRScheduler,
        evaluator: Engine,
        run: Mapping[str, Any],
    ) -> None:
        self.directory = Path(directory)
        self.network = network
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.evaluator = evaluator
        self.run = run
        self.saved = 0  # steps that last.pt has the state after

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer; validation has to be attached before, so that it is in the state that is saved."""
        engine.add_event_handler(Events.STARTED, self._resume)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._save_last)
        engine.add_event_handler(Events.TERMINATE, self._save_at_end)
        self.evaluator.add_event_handler(Events.EPOCH_COMPLETED, self._save_best)

    def _members(self, trainer: Engine) -> dict[str, Any]:
        scaler = {} if trainer.scaler is None else {"scaler": trainer.scaler}
        return {"network": self.network, "optimizer": self.optimizer, "trainer": trainer, **scaler}

    def _resume(self, trainer: Engine) -> None:
        self.saved = 0
        if trainer.state.iteration > 0:
            return
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(f"{self.directory} cannot be made ({error}); give an output_dir to write to") from error
        checkpoint = self._newest()
        if checkpoint is None:
            return
        if reason := self._other_run(checkpoint, trainer):
            self._set_aside(reason, LAST, PREVIOUS, BEST)
            return
        max_epochs = trainer.state.max_epochs
        settings = [_settings(group) for group in self.optimizer.param_groups]
        for name, member in self._members(trainer).items():
            if checkpoint.get(name):  # no scaler in one of a run in float32, and an empty one in one of a CPU
                member.load_state_dict(checkpoint[name])
        trainer.state.max_epochs = max_epochs
        self._set(settings, checkpoint["lr_steps"])
        self.evaluator.state.best_metric = checkpoint["best_metric"]
        self.evaluator.state.best_metric_epoch = checkpoint["best_metric_epoch"]
        self.saved = trainer.state.iteration
        steps = self.saved % trainer.state.epoch_length
        logger.info(
            f"resumed after epoch {trainer.state.epoch}{f' and {steps} steps' if steps else ''} of {max_epochs} "
            f"from {self.directory}"
        )

    def _newest(self) -> dict[str, Any] | None:
        """The newest checkpoint that can be read; those that cannot are set aside."""
        for name in (LAST, PREVIOUS):
            if not (self.directory / name).exists():
                continue
            try:
                return read_checkpoint(self.directory / name)
            except ValueError as error:
                self._set_aside(str(error), name)
        return None

    def _set(self, settings: Sequence[dict[str, Any]], steps: int) -> None:
        """Give the optimizer this run's settings, and the learning rates that its schedule has after ``steps``."""
        for group, setting in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(setting)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step\\(\\)` before")
            for _ in range(steps):
                self.lr_scheduler.step()

    def _identity(self, trainer: Engine) -> dict[str, Any]:
        return {**self.run, "steps an epoch": trainer.state.epoch_length}

    def _other_run(self, checkpoint: Any, trainer: Engine) -> str:
        """Why the checkpoint is none to go on from; empty if it is one."""
        if not isinstance(checkpoint, dict) or not {"network", "optimizer", "trainer", *NUMBERS} <= checkpoint.keys():
            return "the checkpoint is none that a run can go on from"
        if _shapes(checkpoint["network"]) != _shapes(self.network.state_dict()):
            return "the checkpoint is of another network"
        if _form(checkpoint["optimizer"]) != _form(self.optimizer.state_dict()):
            return "the checkpoint is of another kind of optimizer"
        for name, value in self._identity(trainer).items():
            if checkpoint["run"].get(name) != value:
                return f"the checkpoint is of a run with {name} {checkpoint['run'].get(name)}, this one has {value}"
        epochs, max_epochs = checkpoint["trainer"]["iteration"] // trainer.state.epoch_length, trainer.state.max_epochs
        if epochs > max_epochs:
            return f"the checkpoint is after {epochs} epochs, more than max_epochs={max_epochs}"
        return ""

    def _set_aside(self, reason: str, *names: str) -> None:
        distributed.barrier()  # every process has read them
        if distributed.get_rank() > 0:
            return
        for path in (self.directory / name for name in names):
            if path.exists():
                date = time.strftime("%Y%m%d-%H%M%S", time.localtime(path.stat().st_mtime))
                kept = path.rename(path.with_stem(f"{path.stem}-{date}"))
                logger.warning(f"{reason}; {path} is kept as {kept.name}")

    def _save_last(self, trainer: Engine) -> None:
        if distributed.get_rank() > 0 or self.saved == trainer.state.iteration:
            return
        self._refuse_what_is_not_finite(trainer)
        state = {name: member.state_dict() for name, member in self._members(trainer).items()}
        numbers = {
            "run": self._identity(trainer),
            "lr_steps": self.lr_scheduler.last_epoch,
            "best_metric": self.evaluator.state.best_metric,
            "best_metric_epoch": self.evaluator.state.best_metric_epoch,
        }
        save_whole({**state, **numbers}, self.directory / LAST, self.directory / PREVIOUS)
        self.saved = trainer.state.iteration

    def _save_at_end(self, trainer: Engine) -> None:
        self._save_last(trainer)
        logger.info(f"{self.directory / LAST} is of step {self.saved}; the same command goes on from there")

    def _refuse_what_is_not_finite(self, trainer: Engine) -> None:
        """As after a step of a finite loss whose gradient was not: a run would go on from it to no end."""
        spoilt = [name for name, tensor in self.network.state_dict().items() if not torch.isfinite(tensor).all()]
        if spoilt:
            raise FloatingPointError(
                f"{len(spoilt)} tensors of the network ({spoilt[0]}, …) are NaN or infinite after step "
                f"{trainer.state.iteration}, and not saved; the checkpoints in {self.directory} are of steps before; "
                "lower learning_rate, or set precision to fp32, and run again"
            )

    def _save_best(self, evaluator: Engine) -> None:
        if evaluator.state.best_metric_epoch == evaluator.state.epoch and distributed.get_rank() == 0:
            save_whole(self.network.state_dict(), self.directory / BEST)


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name != "params"}


def _form(optimizer: dict[str, Any]) -> list[tuple[list[int], set[str]]]:
    """Which parameters each group of an optimizer's state has, and which settings."""
    return [(group["params"], set(_settings(group))) for group in optimizer["param_groups"]]


def _shapes(state: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}
