"""Cross-stage attention residuals (XAttnRes, arXiv 2604.03297) for MONAI."""

from xattnres_monai.alignment import StageAligner
from xattnres_monai.attention import (
    CrossStageAttention,
    Stage,
    XAttnResOptions,
    attention_maps,
    cross_stage_attentions,
)
from xattnres_monai.functional import depth_attention, depth_weights
from xattnres_monai.history import FeatureHistory
from xattnres_monai.networks import XAttnResUNet

__version__ = "0.1.0"

__all__ = [
    "CrossStageAttention",
    "FeatureHistory",
    "Stage",
    "StageAligner",
    "XAttnResOptions",
    "XAttnResUNet",
    "attention_maps",
    "cross_stage_attentions",
    "depth_attention",
    "depth_weights",
]
