"""Point clouds of places, for training only: from surface models, from overlapping pictures, from a network."""
