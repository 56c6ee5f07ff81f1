"""One file a logger; experiment.py calls each with what it is told `About` the run."""
