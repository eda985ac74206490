"""Draw where Algorithm 1 finds peaks; the table in ``figures`` says how."""

from analysis.xu2024 import figures

if __name__ == "__main__":
    figures.main("algorithm1")
