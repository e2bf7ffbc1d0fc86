"""Which operations RandAugment draws from: one file a policy, each a literal tuple, so that a new operation changes no
run that does not name it.
"""
