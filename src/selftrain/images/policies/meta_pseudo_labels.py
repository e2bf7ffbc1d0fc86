"""For CIFAR-10 and ImageNet (Meta Pseudo Labels, Table 5)."""

OPERATIONS = (
    "auto_contrast",
    "brightness",
    "color",
    "contrast",
    "equalize",
    "invert",
    "sharpness",
    "posterize",
    "sample_pairing",
    "solarize",
    "rotate",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)
