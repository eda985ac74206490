"""Draw Fig. 12 of Gabdullin (2024); the table in ``figures`` says how."""

from analysis.gabdullin2024 import figures

if __name__ == "__main__":
    figures.main("fig12")
