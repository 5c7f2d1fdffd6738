"""What is wrong with nodes that run on something else than the driver, from answers made up."""

from __future__ import annotations

from dataclasses import replace

from cluster.probe import Answer, Kit, findings

OWN = Kit("3.12.3", "2.60.0", "1a2b3c4d5e", "/home/ubuntu/duologue")


def told(*answers: Answer) -> list[str]:
    return [str(finding) for finding in findings("/shared/runs", list(answers), OWN, len(answers))]


def test_nodes_that_are_alike_have_nothing_wrong_wherever_their_code_lies() -> None:
    elsewhere = replace(OWN, place="/opt/duologue")
    assert told(Answer("10.0.0.1", True, OWN), Answer("10.0.0.2", True, elsewhere)) == []
    assert told(Answer("10.0.0.1", None, OWN)) == []  # an object store: no node was asked for it


def test_each_node_that_differs_is_named_with_what_it_has_and_what_is_here() -> None:
    (said,) = told(
        Answer("10.0.0.1", True, OWN),
        Answer("10.0.0.4", True, Kit("3.12.3", "2.60.0", "", "")),
        Answer("10.0.0.3", True, replace(OWN, python="3.11.7", ray="2.59.1")),
        Answer("10.0.0.2", True, replace(OWN, code="99999999aa", place="/opt/old")),
        Answer("10.0.0.5", failure="PermissionError: /root/duologue"),
    )
    assert said.startswith(
        "cluster: error: nodes differ: "
        "10.0.0.2 has Duologue 99999999 in /opt/old (here 1a2b3c4d in /home/ubuntu/duologue); "
        "10.0.0.3 has Python 3.11.7 (here 3.12.3), Ray 2.59.1 (here 2.60.0); "
        "10.0.0.4 has no Duologue (here that of /home/ubuntu/duologue); "
        "10.0.0.5 has no answer: PermissionError: /root/duologue"
    )
    assert "10.0.0.1" not in said
    assert "ray job submit --working-dir ." in said


def test_what_is_wrong_with_the_folder_and_with_the_code_is_said_at_once() -> None:
    blind, unlike = told(
        Answer("10.0.0.1", True, OWN), Answer("10.0.0.2", False, replace(OWN, ray="2.59.1"))
    )
    assert blind.startswith("/shared/runs: error: is not seen by 1 of 2 nodes (10.0.0.2)")
    assert "10.0.0.2 has Ray 2.59.1 (here 2.60.0)" in unlike


def test_nodes_of_one_machine_share_its_address_and_hide_each_other_not() -> None:
    old = Answer("10.0.0.1", True, replace(OWN, ray="2.59.1"))
    same = Answer("10.0.0.1", True, OWN)
    for answers in ((old, same), (same, old)):
        (said,) = told(*answers)
        assert "10.0.0.1 has Ray 2.59.1 (here 2.60.0)" in said
