"""Figures, tables, the report's page and the loss landscape, drawn from finished runs."""
