"""One file a logger. Each is called by experiment.py with the run's folder, name, id and configuration."""
