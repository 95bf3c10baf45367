"""What learns: the network, its losses, the training pairs, the renderer."""
