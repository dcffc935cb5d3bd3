"""Neural models: which there are, and whether their weights are on this machine."""
