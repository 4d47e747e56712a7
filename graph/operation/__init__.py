"""What is checked about an operation before it runs.

documents       from text to a valid document: parsed, judged and priced once for each text
limits          how long, deep and wide a document may be
values          how many values its variables hold, counted before they are coerced
complexity      what an operation may cost, in objects to load
permissions     which role each operation needs
introspection   the schema is shown to known viewers only
"""
