"""Selection policies, one file each: see ``selection/policy.py`` for what a file holds."""
