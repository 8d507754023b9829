"""The network families: each a subclass of MONAI's class of the same name without the prefix."""

from xattnres_monai.networks.seg_resnet import XAttnResSegResNet
from xattnres_monai.networks.swin_unetr import XAttnResSwinUNETR
from xattnres_monai.networks.unet import XAttnResUNet
from xattnres_monai.networks.unetr import XAttnResUNETR

__all__ = ["XAttnResSegResNet", "XAttnResSwinUNETR", "XAttnResUNETR", "XAttnResUNet"]
