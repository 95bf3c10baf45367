"""How good a model is on a benchmark: describe, search, count as the papers count, print their table."""
