"""Xu et al. (2024), Visualizing, Rethinking, and Mining the Loss Landscape of DNNs."""
