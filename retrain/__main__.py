"""`python -m retrain`."""

from retrain.cli import program

if __name__ == "__main__":
    program()
