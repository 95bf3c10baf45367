"""What the trainer of the methods is made of: pairs, batches in order, checkpoints, held-out figures."""
