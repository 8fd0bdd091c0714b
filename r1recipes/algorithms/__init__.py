"""The training algorithms: one module each, and one table."""
