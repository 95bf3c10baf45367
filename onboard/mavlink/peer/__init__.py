"""The other end of the line, taken by us: it hears, decodes and checks what a flight controller would get."""
