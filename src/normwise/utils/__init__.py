"""What every package needs and none owns: modes and copies of a network, asking it, rows, hashing, files."""
