"""End a training in an orderly way after SIGTERM, the signal that clusters send before they take a machine back."""

from __future__ import annotations

import logging
import signal
import sys
import threading

from ignite import distributed
from ignite.engine import Engine, Events

__all__ = ["run"]

logger = logging.getLogger(__name__)


def run(trainer: Engine) -> None:
    """Run a trainer, and end it early after a SIGTERM.

    After a SIGTERM, the trainer completes the current step or validation and fires ``TERMINATE``, on which
    ``ResumableCheckpoint`` saves. With several processes, a SIGTERM to one of them ends all. Only the main thread
    receives signals; in any other thread the trainer simply runs.

    Args:
        trainer: MONAI trainer.

    Raises:
        SystemExit: with status 143, after a SIGTERM.
    """
    asked = threading.Event()

    def terminate(engine: Engine) -> None:
        # do not end right after the last step of an epoch: its schedule step and its validation are still to come
        within_epoch = engine.state.iteration % engine.state.epoch_length
        if not within_epoch and engine.last_event_name == Events.ITERATION_COMPLETED:
            return
        if distributed.all_reduce(int(asked.is_set()), "MAX"):  # so that all processes end after the same step
            asked.set()
            engine.terminate()

    if threading.current_thread() is not threading.main_thread():
        trainer.run()
        return
    trainer.add_event_handler(Events.ITERATION_COMPLETED | Events.EPOCH_COMPLETED, terminate)
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        trainer.run()
    finally:
        signal.signal(signal.SIGTERM, before)
    if asked.is_set():
        logger.warning(f"SIGTERM: ended after step {trainer.state.iteration}")
        sys.exit(128 + signal.SIGTERM)
