"""A long time of everything at once; test_soak.py puts it together.

    Ledger    what was switched and killed when, and whether each answer agrees with it
    clients   who behave well: every answer must be whole and right
    abuse     who do not: malformed, half, silent, leaving, not reading
    chaos     switches every second, kills every minute
    Meter     memory, descriptors and threads of the processes, sampled
"""
from .abuse import ABUSES
from .chaos import Killer, Switcher
from .clients import CLIENTS
from .ledger import Ledger
from .meter import Meter
from .worker import Crew

__all__ = ["ABUSES", "CLIENTS", "Crew", "Killer", "Ledger", "Meter", "Switcher"]
