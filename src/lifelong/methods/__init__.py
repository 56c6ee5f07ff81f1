"""One file per method; base.py says what they share and quadratic.py does the arithmetic."""
