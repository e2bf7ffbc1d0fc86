"""All of AutoAugment's operations."""

OPERATIONS = (
    "auto_contrast",
    "equalize",
    "invert",
    "posterize",
    "solarize",
    "solarize_add",
    "color",
    "contrast",
    "brightness",
    "sharpness",
    "shear_x",
    "shear_y",
    "translate_y",
    "translate_x",
    "rotate",
)
