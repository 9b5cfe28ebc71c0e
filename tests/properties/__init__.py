"""What holds for every rollout, whatever goes wrong: generated homeservers, faults, crashes and words."""
