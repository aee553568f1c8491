"""Bugs to be planted, to prove that the checker finds them."""


def plant(name: str) -> None:
    raise NotImplementedError(name)
