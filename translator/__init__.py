"""Turns a request of one dialect into another and the answer back, once per attempt, where client and provider differ."""
