"""A loss that is no number stops a training at once, and the error says where to look."""

from __future__ import annotations

import math
from pathlib import Path

from ignite.engine import Engine, Events
from monai.handlers import from_engine

from xattnres_monai.training.checkpoints import LAST

__all__ = ["CheckFiniteLoss"]


class CheckFiniteLoss:
    """MONAI handler of a trainer that raises when the loss is NaN or infinite.

    ignite's ``TerminateOnNan`` ends the run as if it were finished.

    Args:
        directory: folder of the run's checkpoints.

    Raises:
        FloatingPointError: names the step, the images of the batch and the last checkpoint.
    """

    def __init__(self, directory: str | Path) -> None:
        self.last = Path(directory) / LAST

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, trainer: Engine) -> None:
        """Check the loss of the step that was made."""
        loss = float(from_engine(["loss"], first=True)(trainer.state.output))
        if math.isfinite(loss):
            return
        images = dict.fromkeys(str(case["image"].meta["filename_or_obj"]) for case in trainer.state.batch)
        good = f"the last good checkpoint is {self.last}" if self.last.exists() else "there is no checkpoint yet"
        raise FloatingPointError(
            f"the loss is {loss} at step {trainer.state.iteration} (epoch {trainer.state.epoch}), "
            f"of {', '.join(images)}; {good}; look at these images, lower learning_rate, or set precision to fp32, "
            "and run again"
        )
