"""Before the first flight: what of the vehicle's settings and of the link stands in the way, and how to mend it."""
