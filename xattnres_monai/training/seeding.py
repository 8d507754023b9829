"""Make all random numbers of a training depend on seed, epoch and case, so that a resumed run draws the same ones."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import torch
from ignite import distributed
from ignite.engine import Engine, Events
from ignite.utils import manual_seed
from monai.data import CacheDataset, DataLoader

__all__ = ["SeedHandler", "SeededCacheDataset"]


def _mixed(*numbers: int) -> int:
    """Hash several numbers into a 32-bit seed, because sums of them would coincide. Trailing zeros have no effect."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


class SeededCacheDataset(CacheDataset):
    """MONAI's ``CacheDataset`` with random transforms that depend on seed, epoch and index alone.

    In MONAI's own class, a transform continues the random sequence of its process. Its results then depend on the
    number of workers, and a resumed run cannot reproduce them.

    Args:
        *args: positional arguments of ``CacheDataset``.
        seed: seed of the run.
        **kwargs: keyword arguments of ``CacheDataset``; the transform must be a ``Compose``.

    Attributes:
        epoch: the current epoch. Set it before the epoch's batches are made, because workers copy it when they start.
    """

    def __init__(self, *args: Any, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seed = seed
        self.epoch = 0

    def _transform(self, index: int) -> Any:
        self.transform.set_random_state(seed=_mixed(self.seed, self.epoch, index))
        return super()._transform(index)


class SeedHandler:
    """MONAI handler that seeds every epoch and step, and resumes an interrupted epoch at its next step.

    The order of the cases depends on seed and epoch. Random numbers of the network, such as dropout, depend on seed,
    step and process. To resume within an epoch, the handler loads the batches of the completed steps and skips them.

    Args:
        loader: the trainer's data loader, with a ``SeededCacheDataset`` that provides the seed.

    Raises:
        ValueError: when an epoch of the trainer is not one pass through the loader.
    """

    def __init__(self, loader: DataLoader) -> None:
        self.loader = loader

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._seed_epoch)
        engine.add_event_handler(Events.ITERATION_STARTED, self._seed_step)

    def _seed_epoch(self, trainer: Engine) -> None:
        steps_of_loader = len(self.loader)
        if trainer.state.epoch_length != steps_of_loader:
            raise ValueError(
                f"got epoch_length={trainer.state.epoch_length}, expected {steps_of_loader}, the number of batches, "
                "because seeds depend on the epoch; change batch_size or max_epochs instead"
            )
        dataset = self.loader.dataset
        dataset.epoch = trainer.state.epoch
        manual_seed(_mixed(dataset.seed, dataset.epoch))
        steps = trainer.state.iteration % trainer.state.epoch_length
        trainer.state.dataloader = islice(self.loader, steps, None) if steps else self.loader

    def _seed_step(self, trainer: Engine) -> None:
        # the fourth number keeps this seed apart from the seeds of cases, which are made of three
        torch.manual_seed(_mixed(self.loader.dataset.seed, trainer.state.iteration, distributed.get_rank(), 1))
