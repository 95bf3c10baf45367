"""What the vehicle says: its clock, its telemetry in our clock, what it is, and what it is asked for."""
