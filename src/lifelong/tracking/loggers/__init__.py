"""One file a logger; experiment/ calls each with what it is told `About` the run."""
