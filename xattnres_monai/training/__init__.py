"""Additions to MONAI's trainer: resumable checkpoints, seeding, a check of the loss, and handling of SIGTERM."""
