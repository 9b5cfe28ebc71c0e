"""The lab's own counting."""
