"""Training pairs: a view of the ground and the map tile that it lies in."""
