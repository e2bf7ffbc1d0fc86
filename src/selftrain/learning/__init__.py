"""What algorithms are made of: the contract with the training loop, losses, gradients, feedback."""
