"""What the methods are made of: encoders, heads, aggregators, decoders. Every part is chosen and sized by config."""
