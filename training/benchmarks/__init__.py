"""Public data sets in their official layouts, and our own places: queries, references, which belongs to which."""
