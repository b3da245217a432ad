"""."""

from cnncc.cli.verbs import Verbs


def add(verbs: Verbs) -> None:
    pass
