"""Runs of a sweep trained in one process: their parameters are stacked along a leading dimension."""
