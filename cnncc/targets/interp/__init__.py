"""The interpreter as a target: runs the kernels' loop nests as they are defined."""
