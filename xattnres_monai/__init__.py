"""Cross-stage attention residuals (XAttnRes, arXiv 2604.03297) for MONAI."""

from xattnres_monai.attention import (
    CrossStageAttention,
    FeatureHistory,
    Stage,
    XAttnResOptions,
    attention_maps,
    cross_stage_attentions,
    depth_attention,
    depth_weights,
    nested_attention,
)
from xattnres_monai.networks import XAttnResSegResNet, XAttnResSwinUNETR, XAttnResUNet, XAttnResUNETR
from xattnres_monai.networks.load_backbone import LoadReport, load_backbone

__version__ = "0.1.0"

__all__ = [
    "CrossStageAttention",
    "FeatureHistory",
    "LoadReport",
    "Stage",
    "XAttnResOptions",
    "XAttnResSegResNet",
    "XAttnResSwinUNETR",
    "XAttnResUNETR",
    "XAttnResUNet",
    "attention_maps",
    "cross_stage_attentions",
    "depth_attention",
    "depth_weights",
    "load_backbone",
    "nested_attention",
]
