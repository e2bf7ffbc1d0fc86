"""Studies: grids of `dvc exp` experiments, each a question that a paper or a user asks."""
