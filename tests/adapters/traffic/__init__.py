"""HAProxy's own."""
