"""The command ``maps``, which shows what the attention of a trained network looks at and depends on."""
