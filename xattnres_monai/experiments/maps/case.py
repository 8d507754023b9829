"""One image, a bundle's network with its weights, and the bundle's way of bringing one to the other."""

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
    """An image and its label, prepared by a bundle's ``inference.json``, and the network that segments it.

    Args:
        bundle: the bundle's folder.
        image: its file.
        overlays: names of config files of the bundle that come after ``inference.json``.
        label: file of the image's label, where there is one.
        overrides: other keys of the config; ``checkpoint`` is the file of the weights.

    Attributes:
        label: class of every voxel ``(1, *S)`` on the grid of the image's file; ``None`` without a file.

    Raises:
        FileNotFoundError: when there is no image, label or checkpoint.
        RuntimeError: when the checkpoint is of another network.
        ValueError: when it holds anything but tensors; when image or label cannot be used.
    """

    def __init__(
        self, bundle: Path, image: Path, overlays: Sequence[str] = (), label: Path | None = None, **overrides: Any
    ) -> None:
        files = {"image": image} if label is None else {"image": image, "label": label}
        for kind, file in files.items():
            if not file.is_file():
                raise FileNotFoundError(f"got {file}, expected the file of the {kind}")
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
                f"got no file {checkpoint}, expected a checkpoint; train, or give one with --checkpoint"
            )
        self.network.load_state_dict(read_checkpoint(checkpoint))
        try:
            prepared = self.preprocessing({kind: str(file) for kind, file in files.items()})
        except RuntimeError as error:  # in which MONAI wraps what a check says
            raise ValueError(one_line(error)) from error
        self.image: MetaTensor = prepared["image"]
        self.label: MetaTensor | None = prepared.get("label")
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
