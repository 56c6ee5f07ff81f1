"""One file per section of scripts/benchmark.py: `measure` returns a table. floor.py is what ours is held to."""
