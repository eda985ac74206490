"""Draw test errors of tuned methods; the table in ``figures`` says how."""

from analysis.sankar2021 import figures

if __name__ == "__main__":
    figures.main("tuned")
