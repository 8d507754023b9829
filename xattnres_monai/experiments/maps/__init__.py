"""What the attention of a trained network looks at, and what it depends on: the command ``maps``."""
