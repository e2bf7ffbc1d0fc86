"""What becomes of every unlabeled image, and how classes are balanced."""
