"""The embedded PostgreSQL server.

server           started, watched and stopped
cluster          its data on disk: making them, their version, the processes that use them
binaries         PostgreSQL's programs, and the user they run as
data_directory   where an installation keeps its files, and the lock that guards them
"""
