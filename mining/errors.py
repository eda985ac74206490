"""The error that says the input is wrong."""


class InputError(ValueError):
    """Raised where an argument, a file, a model or its data are not what they must be.

    Its message names the argument, what was expected, what came, and the remedy where there is
    one; the command line shows that line alone. Every other exception is a fault of the program
    and keeps its traceback.
    """
