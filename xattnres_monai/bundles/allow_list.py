"""The allow list that :mod:`.expressions` compares a bundle with: what the zoo's configs run, and no more.

A name may be added only if no argument in a config can make it run code, load anything but data, or replace a file
that has another name than the files of a run. Some functions and classes of MONAI, torch and this package fail this
test. The list therefore names single functions and classes, never a whole package.
"""

# ruff: noqa: SIM905  (one name per line would fill pages)
from __future__ import annotations

__all__ = ["ATTRIBUTES", "EXPRESSIONS", "IMPORTS", "NAMES", "READERS", "TARGETS"]

IMPORTS = ("logging", "os")  # the modules of this package that the names below belong to are allowed, too
# Functions and other values of modules and of Python itself that expressions use
NAMES = frozenset(
    """
    int len print
    logging.INFO logging.disable
    monai.handlers.from_engine monai.utils.set_determinism
    os.environ os.environ.get os.path.expanduser os.path.join
    torch.cuda.is_available torch.cuda.set_device torch.device torch.uint8
    torch.distributed.destroy_process_group
    xattnres_monai.bundles.config_keys.check_keys
    xattnres_monai.bundles.published_weights.checked
    xattnres_monai.data.folds.training_cases xattnres_monai.data.folds.validation_cases
    xattnres_monai.data.layout.find_images
    xattnres_monai.data.readers.acdc.datalist xattnres_monai.data.readers.amos.datalist
    xattnres_monai.data.readers.btcv.datalist xattnres_monai.data.readers.busi.datalist
    xattnres_monai.data.readers.mni152.simulate
    xattnres_monai.data.readers.msd.datalist xattnres_monai.data.readers.msd.download
    xattnres_monai.data.transforms.plain_batch xattnres_monai.data.transforms.to_grey
    xattnres_monai.evaluation.report.summary xattnres_monai.evaluation.threshold_baseline.validation_dice
    xattnres_monai.training.sigterm.run
    xattnres_monai.utils.amp.autocast xattnres_monai.utils.amp.default_precision
    """.split()
)
# Attributes and methods of any value. The value may be a module, so no harmful function may have one of these names.
ATTRIBUTES = frozenset("epoch_length meta parameters run state to type".split())
# These are allowed only word for word: with other arguments they could import any object or contact other machines.
EXPRESSIONS = (
    "monai.utils.optional_import('tensorboard')[1]",
    "torch.distributed.init_process_group('nccl' if @on_gpu else 'gloo')",
)
# Names without a dot are classes of MONAI, which finds them by name.
TARGETS = frozenset(
    """
    Activationsd AsDiscreted CacheDataset CheckpointLoader Compose DataLoader DiceCELoss DistributedSampler
    EnsureChannelFirstd HausdorffDistanceMetric Invertd LrScheduleHandler MeanDice MetricsSaver
    NormalizeIntensityd Orientationd RandAffined RandCropByPosNegLabeld RandFlipd RandGaussianNoised RandRotate90d
    RandScaleIntensityd RandShiftIntensityd Resized ScaleIntensityRanged SimpleInferer SliceInferer
    SlidingWindowInferer SpatialPadd SqueezeDimd StatsHandler SupervisedEvaluator SupervisedTrainer
    SurfaceDistanceMetric TensorBoardStatsHandler ToDeviced ValidationHandler
    ignite.handlers.ProgressBar
    torch.nn.parallel.DistributedDataParallel torch.optim.AdamW torch.optim.lr_scheduler.PolynomialLR
    xattnres_monai.bundles.published_weights.PublishBest
    xattnres_monai.data.checks.CheckImaged xattnres_monai.data.checks.CheckLabeld xattnres_monai.data.checks.LoadImaged
    xattnres_monai.data.transforms.MergeMasksd xattnres_monai.data.transforms.Spacingd
    xattnres_monai.evaluation.metrics.SurfaceMetric xattnres_monai.evaluation.overlays.SaveOverlayd
    xattnres_monai.inference.evaluator.ImageDataset xattnres_monai.inference.evaluator.InferenceEvaluator
    xattnres_monai.inference.writers.SaveImaged
    xattnres_monai.networks.XAttnResSwinUNETR xattnres_monai.networks.XAttnResUNETR xattnres_monai.networks.XAttnResUNet
    xattnres_monai.training.checkpoints.ResumableCheckpoint xattnres_monai.training.finite_loss.CheckFiniteLoss
    xattnres_monai.training.seeding.SeedHandler xattnres_monai.training.seeding.SeededCacheDataset
    """.split()
)
READERS = ("PILReader",)  # for LoadImaged, which would accept the dotted name of any callable
