"""What leaves the project: the best model with its card, in other formats, and registered for serving."""
