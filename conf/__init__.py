"""Configuration files, shipped with the package as ``mining.conf``."""
