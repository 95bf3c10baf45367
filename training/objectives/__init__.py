"""The losses of the three papers as pure functions, each with its equation number."""
