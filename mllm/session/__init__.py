"""The session: the attention function, the state of one call, edits of attention, second passes, activity."""
