"""The lab: dockers on one machine, out of Linux namespaces, for tests, benchmarks and newcomers.

A docker here is a set of namespaces with an address on the lab's own bridge, a host name, processes, mounts and a disk folder of
its own; it is booted with the real start.sh. `lab.Lab` is the whole of it for tests, `labelloop lab` for people. Needs root.

    plan        names, addresses and folders of one lab, kept in its folder      init, inside   process 1 of a docker
    shell       the programs of the system that it calls                         keeper         holds the bridge, samples memory
    dockers     starting, finding and killing the processes of one docker        relay          frames that arrive later
    bridge      the wires between them                                           boot           what a docker runs
    faults      freeze, partition, slow                                          lab, commands  the two ways in

Never imported by the cluster itself.
"""
