"""A wire with a delay: frames between a docker and the bridge, each passed on some milliseconds later.

Owns the relay process of one docker and the devices around it; made because not every kernel has a delaying queue discipline.
Must never see a frame of another docker. Called by `faults`; runs as `python -m cluster.lab.relay OUTER INNER MS`.
"""
