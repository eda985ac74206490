"""Runs, records, checkpoints and files that are either whole or absent."""
