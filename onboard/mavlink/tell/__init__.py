"""What the vehicle is told: messages, firmware profiles, frames, and when an estimate leaves."""
