"""The network families: each a subclass of MONAI's class of the same name without the prefix."""

from xattnres_monai.networks.unet import XAttnResUNet

__all__ = ["XAttnResUNet"]
