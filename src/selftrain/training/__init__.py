"""Batches, noise, models, optimizers and schedules, the loop, checkpoints."""
