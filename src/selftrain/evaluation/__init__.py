"""Accuracy, calibration, agreement: figures from prediction tables, without a network."""
