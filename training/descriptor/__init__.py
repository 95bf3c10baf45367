"""The descriptor stage: a new S-head for a model whose encoder, detail and fine features stay as they are."""
