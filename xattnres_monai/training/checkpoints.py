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
NUMBERS = ("run", "lr_steps", "best_metric", "best_metric_epoch")  # what a checkpoint holds besides the state dicts
logger = logging.getLogger(__name__)


class ResumableCheckpoint:
    """MONAI handler that saves the state of a training run and resumes the run from it.

    The handler saves ``last.pt`` after every epoch and when the trainer is told to terminate. The file holds the state
    dicts of network, optimizer, scaler and trainer, and the best metric so far. The file that it replaces becomes
    ``previous.pt``.

    When a run starts and finds these files, the handler resumes from them. Random numbers depend only on epoch and step
    (:mod:`.seeding`), and the learning rate only on the number of steps of its schedule. A resumed run can therefore
    have another learning rate or weight decay, and more epochs than first planned. The handler resumes only once per
    trainer: a trainer that runs again, as in federated learning, starts from the weights that it has then.

    The handler never overwrites files that it cannot use: it adds their date to their names and warns. If ``last.pt``
    cannot be read, it tries ``previous.pt``. The run starts from scratch if neither can be read. It also starts from
    scratch if the checkpoint has another network, kind of optimizer, seed, fold or number of steps per epoch, or more
    epochs than ``max_epochs``.

    When a validation is the best so far by the evaluator's key metric, the handler saves the network's state dict alone
    as ``model.pt``. MONAI Label, ``ckpt_export`` of ``monai.bundle`` and ``CheckpointLoader`` read this form. A file is
    replaced as a whole or not at all.

    Args:
        directory: folder of the checkpoints; the handler creates it when the run starts.
        network: the network in training.
        optimizer: the network's optimizer.
        lr_scheduler: the learning-rate scheduler. Its learning rates must depend on the number of steps alone.
        evaluator: MONAI evaluator of the validation.
        run: other values that identify the run, such as fold and seed, by name.

    Raises:
        FloatingPointError: when the network has weights that are NaN or infinite; they are not saved.
        OSError: when the folder cannot be created or a file cannot be written; earlier files stay as they were.
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
        self.saved = 0  # the step after which last.pt was saved

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer. Attach the validation first, so that the saved state includes its result."""
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
            raise OSError(
                f"{self.directory} cannot be created ({error}), expected a writable folder; give another output_dir"
            ) from error
        checkpoint = self._newest()
        if checkpoint is None:
            return
        if reason := self._other_run(checkpoint, trainer):
            self._set_aside(reason, LAST, PREVIOUS, BEST)
            return
        max_epochs = trainer.state.max_epochs
        settings = [_settings(group) for group in self.optimizer.param_groups]
        for name, member in self._members(trainer).items():
            if checkpoint.get(name):  # a run in float32 saves no scaler, and a run on a CPU saves an empty one
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
        """Return the newest readable checkpoint, and set aside files that cannot be read."""
        for name in (LAST, PREVIOUS):
            if not (self.directory / name).exists():
                continue
            try:
                return read_checkpoint(self.directory / name)
            except ValueError as error:
                self._set_aside(str(error), name)
        return None

    def _set(self, settings: Sequence[dict[str, Any]], steps: int) -> None:
        """Restore this run's settings of the optimizer, and advance the learning-rate schedule by ``steps``."""
        for group, setting in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(setting)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step\\(\\)` before")
            for _ in range(steps):
                self.lr_scheduler.step()

    def _identity(self, trainer: Engine) -> dict[str, Any]:
        return {**self.run, "steps an epoch": trainer.state.epoch_length}

    def _other_run(self, checkpoint: Any, trainer: Engine) -> str:
        """Return why the run cannot resume from the checkpoint, or an empty string if it can."""
        if not isinstance(checkpoint, dict) or not {"network", "optimizer", "trainer", *NUMBERS} <= checkpoint.keys():
            return "the checkpoint is not one that a run can resume from"
        if _shapes(checkpoint["network"]) != _shapes(self.network.state_dict()):
            return "the checkpoint belongs to another network"
        if _form(checkpoint["optimizer"]) != _form(self.optimizer.state_dict()):
            return "the checkpoint belongs to another kind of optimizer"
        for name, value in self._identity(trainer).items():
            if checkpoint["run"].get(name) != value:
                return (
                    f"the checkpoint belongs to a run with {name} {checkpoint['run'].get(name)}, this one has {value}"
                )
        epochs, max_epochs = checkpoint["trainer"]["iteration"] // trainer.state.epoch_length, trainer.state.max_epochs
        if epochs > max_epochs:
            return f"the checkpoint was saved after {epochs} epochs, more than max_epochs={max_epochs}"
        return ""

    def _set_aside(self, reason: str, *names: str) -> None:
        distributed.barrier()  # other processes may still be reading the files
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
        logger.info(
            f"{self.directory / LAST} holds the state after step {self.saved}; run the same command to resume from it"
        )

    def _refuse_what_is_not_finite(self, trainer: Engine) -> None:
        """Raise if a weight is NaN or infinite, as after a step with a finite loss but a NaN gradient."""
        spoilt = [name for name, tensor in self.network.state_dict().items() if not torch.isfinite(tensor).all()]
        if spoilt:
            raise FloatingPointError(
                f"{len(spoilt)} tensors of the network ({spoilt[0]}, …) are NaN or infinite after step "
                f"{trainer.state.iteration} and were not saved, expected finite numbers; {self.directory} still holds "
                "the checkpoints of earlier steps; lower learning_rate or set precision to fp32, and run again"
            )

    def _save_best(self, evaluator: Engine) -> None:
        if evaluator.state.best_metric_epoch == evaluator.state.epoch and distributed.get_rank() == 0:
            save_whole(self.network.state_dict(), self.directory / BEST)


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name != "params"}


def _form(optimizer: dict[str, Any]) -> list[tuple[list[int], set[str]]]:
    """Return the parameters and the names of the settings of each group in an optimizer's state dict."""
    return [(group["params"], set(_settings(group))) for group in optimizer["param_groups"]]


def _shapes(state: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}
