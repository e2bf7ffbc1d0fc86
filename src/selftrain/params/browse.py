"""The section of params.yaml about browsing."""

from pydantic import Field

from selftrain.plumbing.sections import Section


class BrowseConfig(Section):
    """``browse``."""

    dataset: str = Field(default="selftrain", pattern=r"^[^./\\][^/\\]*$")
    """Name of the FiftyOne dataset, and of the folder of its images."""
    images_per_view: int = Field(default=500, ge=1)
    """Most images that are extracted from the shards for a view."""
    brain: bool = True
    """Compute FiftyOne Brain's map, uniqueness, hardness and mistakenness, and each run's evaluation."""
