"""How runs are started: jobs of a multirun, of a cluster, and the ranks of one run."""
