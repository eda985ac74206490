"""Draw Fig. 2 of Sankar et al. (2021); the table in ``figures`` says how."""

from analysis.sankar2021 import figures

if __name__ == "__main__":
    figures.main("fig02")
