"""Apply a bundle's trained network to one image, with the bundle's own preprocessing and inferer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.transforms import Compose, Invertd
from torch import Tensor, nn

from xattnres_monai.bundles.workflows import workflow
from xattnres_monai.utils.checkpoint_files import read_checkpoint
from xattnres_monai.utils.errors import one_line

__all__ = ["Case"]


class Case:
    """An image with its label, preprocessed by a bundle's ``inference.json``, and the network that segments it.

    Args:
        bundle: the bundle's folder.
        image: file of the image.
        overlays: names of the bundle's config files that are applied after ``inference.json``.
        label: file of the image's label, if there is one.
        overrides: values of other config keys; ``checkpoint`` is the file of the weights.

    Attributes:
        label: class of every voxel ``(1, *S)`` on the grid of the image's file; ``None`` without a label file.

    Raises:
        FileNotFoundError: when the image, label or checkpoint does not exist.
        RuntimeError: when the checkpoint belongs to another network.
        ValueError: when the checkpoint holds anything but tensors, or when the image or label cannot be used.
    """

    def __init__(
        self, bundle: Path, image: Path, overlays: Sequence[str] = (), label: Path | None = None, **overrides: Any
    ) -> None:
        files = {"image": image} if label is None else {"image": image, "label": label}
        for kind, file in files.items():
            if not file.is_file():
                raise FileNotFoundError(f"got {file}, expected the file of the {kind}; check the path")
        given = {"images": [str(image)], "load_keys": [*files], **overrides}
        flow = workflow(bundle, ["inference", *overlays], **given)
        flow.initialize()
        parser = flow.parser
        self.labels: dict[str, str] = parser["labels"]
        self.output_dir = Path(parser.get_parsed_content("output_dir"))
        self.preprocessing: Compose = parser.get_parsed_content("preprocessing")
        self.inferer: Inferer = parser.get_parsed_content("inferer")
        self.network: nn.Module = parser.get_parsed_content("network").eval()
        checkpoint = Path(parser.get_parsed_content("checkpoint"))
        if not checkpoint.is_file():
            raise FileNotFoundError(
                f"got no file {checkpoint}, expected a checkpoint; train the network, or give one with --checkpoint"
            )
        self.network.load_state_dict(read_checkpoint(checkpoint))
        try:
            prepared = self.preprocessing({kind: str(file) for kind, file in files.items()})
        except RuntimeError as error:  # MONAI wraps the error of a data check in it
            raise ValueError(one_line(error)) from error
        self.image: MetaTensor = prepared["image"]
        self.label: MetaTensor | None = prepared.get("label")
        self.device = parser.get_parsed_content("device")

    @torch.no_grad()
    def infer(self, network: Callable[[Tensor], Tensor]) -> MetaTensor:
        """Return the output ``(K, *S)`` of ``network``, stitched from windows, on the preprocessed image's grid."""
        output = self.inferer(self.image[None].to(self.device), network)[0].cpu()
        return MetaTensor(output, meta=self.image.meta, applied_operations=self.image.applied_operations)

    def on_own_grid(self, output: MetaTensor) -> MetaTensor:
        """Resample an output of :meth:`infer` to the grid of the image's file."""
        invert = Invertd("output", transform=self.preprocessing, orig_keys="image", nearest_interp=False)
        result: MetaTensor = invert({"image": self.image, "output": output})["output"]
        return result

    def segment(self) -> MetaTensor:
        """Return the class of every voxel ``(1, *S)`` on the grid of the image's file."""
        probabilities = self.on_own_grid(torch.softmax(self.infer(self.network), dim=0))
        return probabilities.argmax(dim=0, keepdim=True)
