"""Draw Figs. 10, 11, B.1 and B.2 of Gabdullin (2024); the table in ``figures`` says how."""

from analysis.gabdullin2024 import figures

if __name__ == "__main__":
    figures.main("fig11")
