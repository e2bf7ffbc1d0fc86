"""Batches, optimizers and schedules, the loop, checkpoints."""
