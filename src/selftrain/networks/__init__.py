"""Networks: timm models, their noise, what is frozen of them, and their folders."""
