"""Inference on many images. Broken ones do not stop it: it segments the others and names the broken ones at the end."""

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
    """MONAI's ``Dataset`` of ``{"image": path}`` that reports broken images instead of raising errors.

    An error in a worker would end the run. If a transform refuses an image, its entry has the key ``fault`` with the
    reason instead. Load the data set in batches of one.

    Args:
        data: one dictionary with ``image`` (a path) for each image.
        transform: transforms of MONAI that load the image and prepare it.

    Raises:
        ValueError: when several images have the same name, because their predictions would have the same name too.
    """

    def __init__(self, data: Sequence[Mapping[str, Any]], transform: Callable[..., Any] | None = None) -> None:
        names = Counter(stem(entry["image"]) for entry in data)
        repeated = [name for name, count in names.items() if count > 1]
        if repeated:
            raise ValueError(
                f"got several images named {', '.join(repeated)}, expected different names, because predictions are "
                "named after the images; run each folder separately, with its own output_dir"
            )
        super().__init__(data, transform)

    def _transform(self, index: int) -> Any:
        try:
            return super()._transform(index)
        except Exception as error:  # readers and transforms raise many kinds of error on a broken image
            return {"image": str(self.data[index]["image"]), "fault": one_line(error)}


class InferenceEvaluator(SupervisedEvaluator):
    """MONAI's ``SupervisedEvaluator`` that continues after an image that cannot be segmented or saved.

    Its data loader must load an ``ImageDataset``.

    Attributes:
        faults: one line for each image that failed in the last run.
    """

    faults: list[str]

    def run(self, global_epoch: int = 1) -> None:
        """Segment all images.

        Raises:
            RuntimeError: after the last image, when some images failed. The message names them all with the reasons.
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
        except Exception as error:  # e.g. no memory for this image, or no disk space for its labels
            return self._failed(batchdata["image"].meta["filename_or_obj"][0], one_line(error))

    def _failed(self, image: str, fault: str) -> dict[str, Any]:
        self.faults.append(fault if fault.startswith(image) else f"{image}: {fault}")
        logger.error(self.faults[-1])
        return {}
