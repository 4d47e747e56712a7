"""Stores of files: where pieces of checkpoints and outputs lie, as objects that are named by the ids of their rows.

base        the protocol
choose      the store that the settings name
directory   a directory of the service, or a mount that every machine has
s3          an S3-compatible bucket, which supervisors use by signed URLs
ownership   a store that supervisors write to belongs to one installation
collector   removes what no simulation needs any more

Which pieces there are, whose they are and whether they are complete is in the database (db/files.py).
"""
