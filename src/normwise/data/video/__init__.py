"""Videos as data: decoded once, kept as clips of bytes, split by group."""
