"""One short program a system, in its own words; ``slot`` is what they share. Verbs: see ``driven``."""
