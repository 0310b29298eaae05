"""Data sets: prepared once into memory-mapped arrays, augmented as a function of (data seed, step)."""
