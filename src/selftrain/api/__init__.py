"""What notebooks and other programs use: `import selftrain as st`."""
