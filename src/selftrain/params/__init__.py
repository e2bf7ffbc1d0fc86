"""params.yaml as types: one file a section."""
