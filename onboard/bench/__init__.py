"""How fast and how large it is, on the machine that this runs on."""
