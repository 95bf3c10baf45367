"""From a ground view to a place on the map: retrieve, correlate, re-rank, refine."""
