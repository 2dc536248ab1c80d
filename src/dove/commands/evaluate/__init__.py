"""``dove evaluate ...``: one module for each evaluation."""
