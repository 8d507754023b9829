"""SIGTERM, by which clusters take a machine back, ends a training after its step and saves it."""

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
    """Run a trainer; after a SIGTERM it ends with the step or validation that is under way, and fires ``TERMINATE``.

    ``ResumableCheckpoint`` saves on that event. Of several processes one SIGTERM ends all. Outside of the main thread,
    which alone gets signals, the trainer just runs.

    Args:
        trainer: MONAI trainer.

    Raises:
        SystemExit: of status 143, after a SIGTERM.
    """
    asked = threading.Event()

    def terminate(engine: Engine) -> None:
        # not after the last step of an epoch: its schedule and its validation belong to it
        within_epoch = engine.state.iteration % engine.state.epoch_length
        if not within_epoch and engine.last_event_name == Events.ITERATION_COMPLETED:
            return
        if distributed.all_reduce(int(asked.is_set()), "MAX"):  # all processes end after the same step
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
