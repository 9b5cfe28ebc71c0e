"""What acts on the world: one folder per port. No adapter knows another."""
