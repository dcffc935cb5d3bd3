"""DeepFilterNet3, streamed: its features, its network and the state that both carry from block to block."""
