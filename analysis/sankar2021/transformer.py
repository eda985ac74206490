"""Draw spectra of a transformer by kind of layer; the table in ``figures`` says how."""

from analysis.sankar2021 import figures

if __name__ == "__main__":
    figures.main("transformer")
