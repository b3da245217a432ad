"""Targets turn fused loop nests into something that runs: `interp` defines their meaning, `cpu`
compiles them with Numba, `cuda` prints them for a GPU.  Only this package may import Numba and
llvmlite."""
