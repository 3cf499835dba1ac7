"""Speed, latency and memory, measured: `make bench`. The results are in docs/benchmarks.md.

    record.py         real change records of the simulator's traffic, kept in bench/results
    pipeline_only.py  change record responses → append requests without I/O: CPU a record, stage by stage; a profile
    validation.py     rows that validation compares per CPU second on each side, and memory per change
    live.py           the whole service on the emulators: latency, CPU by process, memory, nothing lost
    strict.py         the same between strict stand-ins; backlog.py, breaking.py and start.py are about its limits
    peer/             product and Beam's Java connector in turn
    aims.py           each aim with what was measured, and why it is missed: docs/speed.md

Figures are CPU seconds wherever they can be: other programs on the machine change them less than wall time.
"""
