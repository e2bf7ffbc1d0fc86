"""New projects for a user's images, and new pipelines in a project."""
