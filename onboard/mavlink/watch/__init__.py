"""Whether the vehicle uses what it is told, whether GPS can be believed, and the words for the pilot."""
