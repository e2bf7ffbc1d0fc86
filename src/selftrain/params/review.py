"""The section of params.yaml about what a person should look at first."""

from pydantic import Field

from selftrain.plumbing.sections import Section


class ReviewConfig(Section):
    """``review``."""

    images: int = Field(default=1000, ge=1)
    """Longest list of doubtful pseudo-labels of a round."""
