"""How a run holds up: corruptions, perturbations, attacks, RandAugment, other labeled folders."""
