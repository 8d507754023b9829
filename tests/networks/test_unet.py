from __future__ import annotations

from monai.networks.nets import UNet

from tests.networks.case import Case
from tests.networks.contract import NetworkContract
from tests.networks.export_contract import ScriptContract
from xattnres_monai import XAttnResUNet


class TestXAttnResUNet(ScriptContract, NetworkContract):
    network_class = XAttnResUNet
    monai_class = UNet
    upsamples_before_merging = False
    cases = {
        "2d": Case(
            dict(spatial_dims=2, in_channels=1, out_channels=2, channels=(4, 8, 8, 16), strides=(2, 2, 2)),
            sizes=((16, 24), (32, 16), (15, 16)),
            refused=((20, 16), (16, 12)),
            multiple=(8, 8),
        ),
        "2d residual units, first stride 1": Case(
            dict(spatial_dims=2, in_channels=3, out_channels=1, channels=(4, 6, 8), strides=(1, 2), num_res_units=2),
            sizes=((8, 6), (10, 12)),
            refused=((9, 6),),
            multiple=(2, 2),
        ),
        "3d": Case(
            dict(spatial_dims=3, in_channels=1, out_channels=3, channels=(4, 8, 12), strides=(2, 2), num_res_units=1),
            sizes=((8, 12, 16), (7, 8, 12)),
            refused=((10, 12, 16),),
            multiple=(4, 4, 4),
        ),
        "3d anisotropic, two levels": Case(
            dict(
                spatial_dims=3, in_channels=2, out_channels=2, channels=(4, 8, 8), strides=((1, 2, 2), (2, 2, 2)),
                kernel_size=(1, 3, 3), up_kernel_size=(1, 3, 3), norm="batch",
            ),
            sizes=((4, 8, 12),),
            refused=((3, 8, 12),),
            multiple=(2, 4, 4),
        ),
        "3d one level": Case(
            dict(spatial_dims=3, in_channels=1, out_channels=2, channels=(4, 8), strides=(2,)),
            sizes=((6, 8, 5),),
            refused=(),
            multiple=(2, 2, 2),
        ),
    }  # fmt: skip

    def test_without_skips_the_decoder_has_no_weights_for_them(self):
        arguments = self.cases["2d"].arguments
        ours = XAttnResUNet(**arguments, xattnres={"skip_connections": False, "stages": "none"}).state_dict()
        transposed = {name: tensor for name, tensor in UNet(**arguments).state_dict().items() if tensor.ndim == 4}
        removed = {name: tensor.shape[0] - ours[name].shape[0] for name, tensor in transposed.items()}
        # the up-layers lose the width of the encoder stage whose output they no longer see; nothing else changes
        assert sorted(width for width in removed.values() if width) == sorted(arguments["channels"][:-1])
