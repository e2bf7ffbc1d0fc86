"""The section of params.yaml about evaluation."""

from pydantic import Field

from selftrain.config import Section


class EvaluateConfig(Section):
    """``evaluate``."""

    examples: int = Field(default=24, ge=0)
    """Images in each of the report's picture grids."""
