"""What XAttnRes costs, beside plain MONAI and the straightforward form."""
