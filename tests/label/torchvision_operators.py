"""For a venv with a CPU build of torch and the registry's torchvision, a CUDA build whose operators do not load there.

MONAI Label imports torchvision and uses none of them: that they are declared is enough. ``make test-label`` installs
this file beside a ``.pth`` that imports it.
"""

import torch

library = torch.library.Library("torchvision", "FRAGMENT")
for name in ("nms", "qnms"):
    library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
