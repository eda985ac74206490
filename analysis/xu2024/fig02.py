"""Draw Fig. 2 of Xu et al. (2024); the table in ``figures`` says how."""

from analysis.xu2024 import figures

if __name__ == "__main__":
    figures.main("fig02")
