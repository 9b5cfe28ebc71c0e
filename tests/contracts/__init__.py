"""One suite per port, for every driver of it and the simulated one: what the port promises holds for all of them."""
