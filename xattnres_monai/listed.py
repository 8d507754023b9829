"""The list that :mod:`xattnres_monai.expressions` compares a bundle with: what the zoo's configs run, and no more.

Before a name goes on it: no argument that a config can give may make it run code or load anything but data. Some of
MONAI's and torch's functions and classes do, losses and transforms among them, so none is listed by its package.
"""

# ruff: noqa: SIM905  (a name a line would be pages)
from __future__ import annotations

from pkgutil import iter_modules

from xattnres_monai import datasets

__all__ = ["ATTRIBUTES", "EXPRESSIONS", "IMPORTS", "NAMES", "OWN", "READERS", "TARGETS"]

# Of these modules of this package the public names are listed, but not what the modules import
OWN = (
    *(f"xattnres_monai.{name}" for name in ("case_checks", "checkpoints", "config", "finite", "inference", "metrics")),
    *(f"xattnres_monai.{name}" for name in ("networks", "pictures", "published", "report", "saving", "seeding")),
    *("xattnres_monai.termination", "xattnres_monai.transforms"),
    *(module.name for module in iter_modules(datasets.__path__, f"{datasets.__name__}.")),
)
IMPORTS = ("logging", "os")
# Functions and other values that expressions take from modules and from Python itself
NAMES = frozenset(
    """
    int len print
    logging.INFO logging.disable
    monai.handlers.from_engine monai.utils.set_determinism
    os.environ os.environ.get os.path.expanduser os.path.join
    torch.cuda.is_available torch.cuda.set_device torch.device torch.uint8
    torch.distributed.destroy_process_group
    """.split()
)
# Attributes and methods of any value, which may be a module as well: none may be the name of a function that does harm
ATTRIBUTES = frozenset("epoch_length meta parameters run state to type".split())
# Listed as they stand: with other arguments these functions bring in any object, or other machines
EXPRESSIONS = (
    "monai.utils.optional_import('tensorboard')[1]",
    "torch.distributed.init_process_group('nccl' if @on_gpu else 'gloo')",
)
# Those without a dot are classes of MONAI, which looks for them in itself
TARGETS = frozenset(
    """
    Activationsd AsDiscreted CacheDataset CheckpointLoader Compose DataLoader DiceCELoss DistributedSampler
    EnsureChannelFirstd HausdorffDistanceMetric Invertd LrScheduleHandler MeanDice MetricsSaver
    NormalizeIntensityd Orientationd RandAffined RandCropByPosNegLabeld RandFlipd RandGaussianNoised RandRotate90d
    RandScaleIntensityd RandShiftIntensityd Resized ScaleIntensityRanged SimpleInferer SliceInferer
    SlidingWindowInferer SpatialPadd SqueezeDimd StatsHandler SupervisedEvaluator SupervisedTrainer
    SurfaceDistanceMetric TensorBoardStatsHandler ValidationHandler
    ignite.handlers.ProgressBar
    torch.nn.parallel.DistributedDataParallel torch.optim.AdamW torch.optim.lr_scheduler.PolynomialLR
    """.split()
)
READERS = ("PILReader",)  # of LoadImaged, which takes the dotted name of any callable
