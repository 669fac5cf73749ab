"""`make demo`: a whole stack, real messages through every door, the bill and the proof."""
