"""For digits (Meta Pseudo Labels, Table 5): rotation makes a 6 of a 9, sideways motion makes a 3 of an 8."""

OPERATIONS = (
    "auto_contrast",
    "brightness",
    "color",
    "contrast",
    "equalize",
    "invert",
    "sharpness",
    "posterize",
    "solarize",
    "shear_x",
    "shear_y",
    "translate_y",
)
