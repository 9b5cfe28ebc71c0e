"""Take a Matrix homeserver to a new release, one worker at a time, without its users noticing."""
