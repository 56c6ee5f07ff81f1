"""From the command line to checked settings: the typed root (schema), groups of choices, options by signature."""
