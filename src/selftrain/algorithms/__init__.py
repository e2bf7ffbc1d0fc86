"""One file per algorithm; each is math with a paper's name on it. Found by module name. See ``learning``."""
