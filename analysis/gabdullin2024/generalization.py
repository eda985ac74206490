"""Draw criteria against accuracy, Sec. 4 of Gabdullin (2024); see ``figures``."""

from analysis.gabdullin2024 import figures

if __name__ == "__main__":
    figures.main("generalization")
