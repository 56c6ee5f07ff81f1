"""One file a method; method.py is the slot, penalty.py what penalties share, quadratic.py their arithmetic."""
