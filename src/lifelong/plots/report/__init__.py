"""A report from run folders alone, without an account: page, figures, tables. Nothing of training imports this room."""
