"""How a region map is made: imagery is laid on the map's grid, then every window of it is embedded."""
