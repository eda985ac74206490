"""Figures and tables of Alabdulkareem (2022)."""
