"""What a kind of homeserver is: roles and duties, evidence per role, schema rules, canaries. One package a kind."""
