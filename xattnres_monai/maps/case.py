"""One image, a bundle's network with its weights, and the bundle's way of bringing one to the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.transforms import Compose, Invertd, LoadImage
from torch import Tensor, nn

from xattnres_monai.weights import read_checkpoint
from xattnres_monai.workflows import workflow

__all__ = ["Case"]


class Case:
    """An image, prepared by a bundle's ``inference.json``, and the network that segments it.

    Args:
        bundle: the bundle's folder.
        image: its file.
        overlays: names of config files of the bundle that come after ``inference.json``.
        overrides: other keys of the config; ``checkpoint`` is the file of the weights.

    Raises:
        FileNotFoundError: when there is no image or no checkpoint.
        RuntimeError: when the checkpoint is of another network.
        ValueError: when it holds anything but tensors.
    """

    def __init__(self, bundle: Path, image: Path, overlays: Sequence[str] = (), **overrides: Any) -> None:
        if not image.is_file():
            raise FileNotFoundError(f"got {image}, expected the file of an image")
        flow = workflow(bundle, ["inference", *overlays], images=[str(image)], **overrides)
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
                f"got no file {checkpoint}, expected a checkpoint; train, or give one with --checkpoint"
            )
        self.network.load_state_dict(read_checkpoint(checkpoint))
        self.image: MetaTensor = self.preprocessing({"image": str(image)})["image"]
        self.device = parser.get_parsed_content("device")

    @torch.no_grad()
    def infer(self, network: Callable[[Tensor], Tensor]) -> MetaTensor:
        """Output ``(K, *S)`` of ``network``, stitched of windows, on the grid of the preprocessed image."""
        output = self.inferer(self.image[None].to(self.device), network)[0].cpu()
        return MetaTensor(output, meta=self.image.meta, applied_operations=self.image.applied_operations)

    def on_own_grid(self, output: MetaTensor) -> MetaTensor:
        """An output of :meth:`infer` on the grid of the image's file."""
        invert = Invertd("output", transform=self.preprocessing, orig_keys="image", nearest_interp=False)
        result: MetaTensor = invert({"image": self.image, "output": output})["output"]
        return result

    def segment(self) -> MetaTensor:
        """Class of every voxel ``(1, *S)`` on the grid of the image's file."""
        probabilities = self.on_own_grid(torch.softmax(self.infer(self.network), dim=0))
        return probabilities.argmax(dim=0, keepdim=True)

    def label(self, path: Path) -> MetaTensor:
        """The label ``(1, *S)`` of the image, which has to be on its grid."""
        label: MetaTensor = LoadImage(image_only=True, ensure_channel_first=True)(path)
        expected = self.on_own_grid(self.image).shape
        if label.shape != expected:
            raise ValueError(f"got the label {path} of shape {tuple(label.shape[1:])}, expected {tuple(expected[1:])}")
        return label
