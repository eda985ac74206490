"""Draw criteria on CIFAR-10 and CINIC-10, Sec. 4 of Gabdullin (2024); see ``figures``."""

from analysis.gabdullin2024 import figures

if __name__ == "__main__":
    figures.main("generalization_cinic10")
