"""What things are: frozen values, no behaviour beyond themselves. The ground floor; it imports nothing of `rollout`."""
