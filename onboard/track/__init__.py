"""Belief over time: the filter, its gate, and how a first position is earned."""
