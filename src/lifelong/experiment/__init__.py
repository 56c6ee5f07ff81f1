"""One run from configuration to result (run, result), and the command line's errors in one line (errors)."""
