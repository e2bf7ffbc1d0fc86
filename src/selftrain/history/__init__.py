"""What changed between selections and revisions, and where a model comes from."""
