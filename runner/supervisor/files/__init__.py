"""Files that follow the work: checkpoints, outputs and code of a simulation, kept in the service's store.

    attached    the main loop's side: begin and finish; nothing else is loaded before it is needed
    contents    files of a directory as they can be kept: what is there, and whether it is quiet
    store       requests to the service's store: reserve, put, commit; kept, fetch
    bucket      what a refusal of an S3-compatible bucket means
    saver       thread that uploads what is new and complete, and the last state at the end
    package     before the child starts: the package of code that it starts in
    fetch       reads what these two need, through outages of the store
    lanes       several transfers at once, and their memory
    bring       before the child starts: the stored files, if they are newer than those on this machine

A file is kept as pieces of at most 8 MiB, named by their SHA-256; a piece that the store has is never sent again. The
list of a directory's files is committed in one request when all of its pieces are stored: until then the list before
it holds, so half an upload is never taken for a checkpoint.

Failures. Nothing here waits in the child's way: what can't be stored now is tried again, and at the end for a limited
time; what stays away is a notice. What can't be brought here ends the attempt before it begins: a simulation never
begins from zero because its checkpoint could not be read.
"""
