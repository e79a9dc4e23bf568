"""Has no run()."""


def init():
    pass
