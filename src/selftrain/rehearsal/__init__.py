"""Every stage of a pipeline run once, with tiny networks on made-up images: what would fail after hours fails now."""
