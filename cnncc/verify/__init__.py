"""The exactness certificate: a user's network, kernel by kernel, against everything that defines
it."""

from cnncc.verify.certificate import Certificate, Check, Verdict
from cnncc.verify.network import verify_network
from cnncc.verify.programs import Settings

__all__ = ["Certificate", "Check", "Settings", "Verdict", "verify_network"]
