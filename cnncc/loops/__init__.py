"""The loop IR: what one kernel computes, before and after it is scheduled for a machine."""
