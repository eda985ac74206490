"""Figures and tables of Gabdullin (2024)."""
