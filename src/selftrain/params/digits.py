"""The section of params.yaml about the built-in corpus."""

from pydantic import Field

from selftrain.plumbing.sections import Section


class DigitsConfig(Section):
    """``digits``: the built-in corpus."""

    labels_per_class: int = Field(default=5, ge=1)
    validation_per_class: int = Field(default=20, ge=1)
    test_per_class: int = Field(default=40, ge=1)
    out_of_domain: int = Field(default=200, ge=0)
