"""What a training run adds to MONAI's trainer: checkpoints, seeds, checks of the loss, SIGTERM."""
