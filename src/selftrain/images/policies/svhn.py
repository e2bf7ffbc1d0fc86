"""For digits (Meta Pseudo Labels, Appendix): rotation makes a 6 of a 9, sideways motion makes a 3 of an 8."""

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
)
