"""Sources of points beside the printed lines: what a program's own tracker records.

    attached     the sources of one attempt: variables for the child, listener, threads, the end
    intake       points of all sources, on their way into the curve and the spool
    variables    which of a tracker's variables the child gets, and when its own are left alone
    reports      named pipe that the package `simulations` writes to
    server       loopback HTTP server: secret, limits, one thread per connection
    mlflow       MLflow's REST API
    wandb        W&B's API
    wandb_file   decoder of W&B's `.wandb` files
    files        thread that finds and tails files below the working and output directories
    events       decoder of TensorBoard's event files
    protobuf     wire format of protocol buffers

A source yields (metric, step, value). Its points take the way of printed ones: the rules of `Curve`, then the spool, in
whose file they are before the source is answered. The source that first gives a metric keeps it for the attempt.

Sources begin and end with the child: requests in progress are answered for half a second after its end, and files are
read once more before the exit is sealed. Unused, sources cost one listening socket and, after half a second, the
thread that looks for files.

Failures. A source never raises into the supervisor: a defect, an unreadable file or an invalid request is logged in
`supervisor.log` and ends that file or request alone.
"""
