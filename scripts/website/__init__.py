"""The pages of the documentation site that are made, not written: read by scripts/documentation.py, MkDocs' hook."""
