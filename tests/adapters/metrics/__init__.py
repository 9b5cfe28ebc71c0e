"""What a scrape may meet."""
