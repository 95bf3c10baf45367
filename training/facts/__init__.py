"""Directional facts of the three papers, measured anew at small scale: what each part is worth, seed by seed."""
