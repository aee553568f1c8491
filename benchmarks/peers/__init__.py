"""Other systems, each in an environment of its own with its own best settings: `python -m benchmarks.peers`.

How it hangs together: ``catalogue`` says what there is; ``install`` makes the environments; ``drivers/`` holds one short
program a system, which speaks that system's own words; ``driven`` runs such a program and watches it through ``slot``.
"""
