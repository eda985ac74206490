"""Draw Fig. 3 of Alabdulkareem (2022); the table in ``figures`` says how."""

from analysis.alabdulkareem2022 import figures

if __name__ == "__main__":
    figures.main("fig03")
