"""The only code that changes a job's or an attempt's state.

Every function works in the caller's transaction and commits nothing. A write that changes an attempt carries its
token; when it touches no row, the caller is a ghost: it stops what it runs and changes nothing.
Rows are locked in one order, so that no two transactions wait for each other: node, jobs that may run, their
attempts, their slots. Jobs that wait for others hold neither; they are locked after the job that they wait for.
"""
