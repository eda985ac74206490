"""Figures and tables of Sankar et al. (2021), A Deeper Look at the Hessian Eigenspectrum."""
