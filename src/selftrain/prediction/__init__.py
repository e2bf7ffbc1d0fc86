"""A model's prediction of every image."""
