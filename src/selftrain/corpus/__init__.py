"""Images in, shards and manifest out; random access back to bytes; duplicates and leaks."""
