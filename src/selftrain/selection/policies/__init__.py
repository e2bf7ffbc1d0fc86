"""Which pseudo-labels are good enough to be trained on: one file a policy, found by its name in ``select.policy``.

A policy has ``COLUMNS``, what it reads of a prediction table (``key, label, confidence``, and ``log_probs``, C float16
numbers in a fixed-size binary), ``REASONS``, the decisions that it may give, and a function

    decide(rows, config) -> reasons

from rows of the table to a column of text: the reason why an image is left out, null where it is a candidate. Balancing
comes afterwards and is the same for every policy.
"""
