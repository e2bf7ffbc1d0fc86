"""The section of params.yaml about evaluation."""

from pydantic import Field

from selftrain.plumbing.sections import Section


class EvaluateConfig(Section):
    """``evaluate``."""

    examples: int = Field(default=24, ge=0)
    """Images in each of the report's picture grids."""
    target_precision: float = Field(default=0.95, gt=0, le=1)
    """Share of right pseudo-labels that the recommended threshold is to give."""
