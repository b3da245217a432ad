"""The CPU target: a vector type for emitted kernels, a team of threads, an arena, and what the
machine offers.

Importing it applies CNNCC_ISA, because Numba fixes the processor it generates code for at its
first compilation."""

from cnncc.targets.cpu.machine import apply_isa

apply_isa()
