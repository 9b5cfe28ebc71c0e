"""The one place that looks at the clock."""
