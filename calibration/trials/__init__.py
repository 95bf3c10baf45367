"""Trials on real imagery: how many views are found, and what is said of those that are not."""
