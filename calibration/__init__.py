"""What ties numbers to the world: how sure a match is, and trials on real ground."""
