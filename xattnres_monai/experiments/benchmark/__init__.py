"""What XAttnRes costs, beside plain MONAI and the paper's equation written down."""
