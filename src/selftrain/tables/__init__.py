"""Tables: one file each, its schema, reading and writing."""
