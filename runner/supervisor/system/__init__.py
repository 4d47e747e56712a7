"""System metrics: what the processes of an attempt use, sampled at an interval, as metrics in the group `system/`.

    sampler   thread: a sample at each interval, as points
    tree      cpu, memory and disk of the processes, from /proc
    host      memory and network of the host or container, from /proc and cgroup files
    gpus      NVIDIA's GPUs by libnvidia-ml or `nvidia-smi`, AMD's by `amd-smi`

    system/cpu                cpus in use: 1 is one cpu
    system/memory             GiB in use; memory that processes share is counted once, as far as /proc shows it
    system/memory_percent     of the memory of the host or container, all processes
    system/disk_read          MiB a second, of the processes; also disk_write
    system/network_receive    MiB a second, of the host or container without loopback; also network_transmit
    system/gpu.N.utilization  percent, of each GPU that the attempt may use; also memory (GiB), power (watts),
                              temperature (degrees Celsius)

The step is the time, in whole seconds since 1970, so that a later attempt supersedes nothing. The first sample is taken
an interval after the child's start: a short attempt costs nothing. A source that fails is left out; nothing is raised.
"""
