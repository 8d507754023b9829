"""Inference of many images, of which some may be broken: the others are segmented, and the end says which were not."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ignite.engine import Engine
from monai.data import Dataset
from monai.engines import SupervisedEvaluator

from xattnres_monai.data.layout import stem
from xattnres_monai.utils.errors import one_line

__all__ = ["ImageDataset", "InferenceEvaluator"]

logger = logging.getLogger(__name__)


class ImageDataset(Dataset):
    """MONAI's ``Dataset`` of ``{"image": path}``; one that a transform refuses comes with the key ``fault`` instead.

    An error in a worker would end the run. To be loaded in batches of one.

    Raises:
        ValueError: when images of several folders have one name, as their predictions would have.
    """

    def __init__(self, data: Sequence[Mapping[str, Any]], transform: Callable[..., Any] | None = None) -> None:
        names = Counter(stem(entry["image"]) for entry in data)
        repeated = [name for name, count in names.items() if count > 1]
        if repeated:
            raise ValueError(
                f"got several images that are named {', '.join(repeated)}, expected names that differ, as predictions "
                "are named after them; run those of each folder by themselves, with another output_dir"
            )
        super().__init__(data, transform)

    def _transform(self, index: int) -> Any:
        try:
            return super()._transform(index)
        except Exception as error:  # a broken image can be any error of what reads and resamples it
            return {"image": str(self.data[index]["image"]), "fault": one_line(error)}


class InferenceEvaluator(SupervisedEvaluator):
    """MONAI's ``SupervisedEvaluator``, which goes on after an image that cannot be segmented or saved.

    Its loader is of an ``ImageDataset``.

    Attributes:
        faults: of the last run, a line for each image that failed.
    """

    faults: list[str]

    def run(self, global_epoch: int = 1) -> None:
        """Segment all images.

        Raises:
            RuntimeError: after the last one, if some failed; names them all and why.
        """
        self.faults = []
        super().run(global_epoch)
        if self.faults:
            raise RuntimeError(
                f"{len(self.faults)} of {self.state.epoch_length} images failed, the others are segmented: "
                f"{'; '.join(self.faults)}"
            )

    def _iteration(self, engine: Engine, batchdata: Mapping[str, Any]) -> dict[str, Any]:
        if "fault" in batchdata:
            return self._failed(batchdata["image"][0], batchdata["fault"][0])
        try:
            return super()._iteration(engine, batchdata)
        except Exception as error:  # no memory for this image, no room for its labels
            return self._failed(batchdata["image"].meta["filename_or_obj"][0], one_line(error))

    def _failed(self, image: str, fault: str) -> dict[str, Any]:
        self.faults.append(fault if fault.startswith(image) else f"{image}: {fault}")
        logger.error(self.faults[-1])
        return {}
