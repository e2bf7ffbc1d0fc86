"""Images: from bytes to the pixels that a network sees; noise, order and loading."""
