"""Draw how complex a curve with θ in its middle can be; the table in ``figures`` says how."""

from analysis.xu2024 import figures

if __name__ == "__main__":
    figures.main("multipoint_middle")
