"""The control block that the threads of a team share, in 64-bit words.  What different threads
write lies at least 128 bytes apart, because processors fetch cache lines in pairs.
"""

LINE = 16
GATE = 0 * LINE  # generation << 16 | closed << 15 | number of threads inside besides the caller
ARRIVED = 1 * LINE  # parts completed in this generation, WHOLE for the share of a thread
STOP = 2 * LINE
ENTRY, JOB = 3 * LINE, 3 * LINE + 1  # addresses, written while the gate is closed
# A line per share: generation << 24 | phase << 5 | pieces of it that are begun. 2^19 phases are
# more than any program has, and 2^39 generations are more than anybody waits for.
CLAIMS = 4 * LINE
TAKEN = CLAIMS + 1  # in the line of its share: how often a thread has taken part of late
# then a word per thread, 1 while it sleeps, and a word per thread with the address of its lock

CLOSED = 1 << 15
INSIDE = CLOSED - 1
BEGUN = 31
WHOLE = 16  # parts of a share, a multiple of its pieces
