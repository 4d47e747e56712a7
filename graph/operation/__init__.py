"""Checks of an operation before it is executed, and what a resolver may ask about its own.

documents       parses, validates and prices each document once
limits          limits on a document's length, depth and width
values          counts the values of variables before they are coerced
complexity      limits an operation's cost, in objects to load
permissions     the role that each operation requires
introspection   limits introspection to viewers with a role
selection       which fields a resolver's operation selects
"""
