"""Exemplars of earlier tasks, replayed with the current one: base.py says what is kept, samplers.py how to choose."""
