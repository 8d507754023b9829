"""Stop a training as soon as its loss is not finite, with an error that says where to look."""

from __future__ import annotations

import math
from pathlib import Path

from ignite.engine import Engine, Events
from monai.handlers import from_engine

from xattnres_monai.training.checkpoints import LAST

__all__ = ["CheckFiniteLoss"]


class CheckFiniteLoss:
    """MONAI handler that raises an error when the trainer's loss is NaN or infinite.

    ignite's ``TerminateOnNan`` would end the run as if it had finished.

    Args:
        directory: folder of the run's checkpoints.

    Raises:
        FloatingPointError: when the loss is not finite; names the step, the batch's images and the last checkpoint.
    """

    def __init__(self, directory: str | Path) -> None:
        self.last = Path(directory) / LAST

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, trainer: Engine) -> None:
        """Check the loss of the step that has just been completed."""
        loss = float(from_engine(["loss"], first=True)(trainer.state.output))
        if math.isfinite(loss):
            return
        images = dict.fromkeys(str(case["image"].meta["filename_or_obj"]) for case in trainer.state.batch)
        good = f"the last good checkpoint is {self.last}" if self.last.exists() else "there is no checkpoint yet"
        raise FloatingPointError(
            f"the loss is {loss} at step {trainer.state.iteration} (epoch {trainer.state.epoch}) "
            f"for {', '.join(images)}, expected a finite number; {good}; check these images, lower learning_rate or "
            "set precision to fp32, and run again"
        )
