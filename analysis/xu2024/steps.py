"""Draw peaks along N.E.1 step by step; the table in ``figures`` says how."""

from analysis.xu2024 import figures

if __name__ == "__main__":
    figures.main("steps")
