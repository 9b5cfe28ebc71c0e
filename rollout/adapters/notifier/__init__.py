"""Telling somebody."""
