"""What the weights of a run say after it: importances, lines between solutions, representations, plasticity."""
