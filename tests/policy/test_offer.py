"""Notice when the machines of a host offer more than the host has."""

from __future__ import annotations

from dataclasses import dataclass, replace

from policy.offer import notice_of


@dataclass(frozen=True)
class Host:
    """Two cpus and 8 GiB, offered once."""

    host: str = "lab"
    cpus: float = 2.0
    memory_gib: float = 8.0
    offered_cpus: float = 2.0
    offered_memory_gib: float = 8.0
    whole: str | None = "lab-machine"


def test_no_notice_for_resources_offered_once() -> None:
    assert notice_of(Host()) is None
    assert notice_of(Host(offered_cpus=0.1 + 0.2 + 1.7)) is None, "float error gives no notice"


def test_resources_offered_twice_give_a_notice_with_advice() -> None:
    assert notice_of(Host(offered_cpus=3.0)) == (
        "The machines of the host lab now offer 3 cpus (it has 2) together: programs that run at the same time share "
        "what there is. To divide the host instead, drain the machine lab-machine."
    )


def test_no_advice_to_drain_if_the_whole_host_takes_no_work() -> None:
    notice = notice_of(replace(Host(), offered_cpus=3.0, offered_memory_gib=12.0, whole=None))
    assert notice is not None
    assert "3 cpus (it has 2) and 12 GiB of memory (it has 8) together" in notice
    assert "drain" not in notice


def test_no_name_can_break_the_line() -> None:
    notice = notice_of(Host("a\n\x1b[31m", offered_cpus=3.0, whole="b\n"))
    assert notice is not None
    assert notice.isprintable()
