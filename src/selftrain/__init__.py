"""Self-training for image classifiers, with the pseudo-label set as the product."""

__version__ = "0.1.0"
