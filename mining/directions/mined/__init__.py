"""Directions found by optimization."""
