"""What the library costs, measured beside others: `make bench`.

    jobs      what is measured, with whom, and what is to be reached
    load      the load generator, a process of its own
    wire      what it says: frames and dialects
    peers/    the servers and clients that are measured, one small file each
    cpu       figures from the operating system
    runner    one job against one peer: processes, cores, rounds
    report    figures as JSON, tables and plots

docs/performance.md has the method.
"""
