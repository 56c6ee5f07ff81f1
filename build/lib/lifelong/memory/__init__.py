"""Exemplars of earlier tasks, replayed with the current one: base.py says what is kept, a file each how to choose."""
