"""What the benchmarks share: a stack, a load, clocks of processes, reports."""
