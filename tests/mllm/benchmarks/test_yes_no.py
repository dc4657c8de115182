"""What an answer says, under each parser."""

from __future__ import annotations

import pytest

from regard.mllm.benchmarks.yes_no import PARSERS, check_parser


@pytest.mark.parametrize(
    ("parser", "text", "label", "parsed"),
    [
        ("official", "No, there is not", "no", "no"),
        ("official", "NO", "no", "yes"),
        ("official", "Nope", "no", "yes"),
        ("official", "no\n", "no", "yes"),
        ("official", "", "no", "yes"),
        ("official", "I cannot see it. No.", "no", "yes"),
        ("official", "It is not visible, but yes", "yes", "no"),
        ("vcd", "unknown", "no", "no"),
        ("vcd", "unknown", "yes", "no"),
        ("vcd", "I cannot say", "no", "no"),
        ("vcd", "A dog", "no", "yes"),
        ("pai", "I cannot see it. No.", "no", "no"),
        ("pai", "There isn't", "no", "no"),
        ("pai", "NO", "no", "no"),
        ("pai", "no\n", "no", "yes"),
        ("lmms_eval", " Yes\n", "yes", "yes"),
        ("lmms_eval", "Yes.", "yes", "unknown"),
        ("vlmevalkit", "Yes, it is.", "yes", "yes"),
        ("vlmevalkit", "yes or no", "yes", "unknown"),
        ("vlmevalkit", "Nope", "no", "unknown"),
        ("vlmevalkit", "1,2yes/no", "no", "unknown"),
        ("mme", "Y", "yes", "yes"),
        ("mme", "No. It is", "no", "no"),
        ("mme", "Not", "no", "no"),
        ("mme", "It is, yes", "yes", "unknown"),
        ("words", "Nope", "no", "no"),
        ("words", "NO", "no", "no"),
        ("words", "I cannot see it. No.", "no", "no"),
        ("words", "It is not visible, but yes", "yes", "yes"),
        ("words", "There isn\N{RIGHT SINGLE QUOTATION MARK}t a dog", "no", "no"),
        ("words", "I can see a dog", "yes", "yes"),
        ("words", "I am not sure", "no", "unknown"),
        ("words", "I can't tell", "no", "unknown"),
        ("words", "There is no doubt that there is a dog", "yes", "yes"),
        ("words", "yes or no", "no", "unknown"),
        ("words", "unknown", "no", "unknown"),
        ("words", "", "no", "unknown"),
    ],
)
def test_a_parser_says_what_its_script_says(parser: str, text: str, label: str, parsed: str) -> None:
    assert PARSERS[parser](text, label) == parsed


@pytest.mark.parametrize("parser", PARSERS)
def test_every_parser_understands_one_word(parser: str) -> None:
    for label in ("yes", "no"):
        assert (PARSERS[parser]("yes", label), PARSERS[parser]("no", label)) == ("yes", "no")


def test_only_vcd_looks_at_the_label() -> None:
    texts = ["", "unknown", "Nope", "I cannot see it. No.", "It is not visible, but yes", "maybe"]
    looking = {name for name, parse in PARSERS.items() if any(parse(one, "yes") != parse(one, "no") for one in texts)}
    assert looking == {"vcd"}


def test_an_unknown_parser_is_an_error_that_names_the_known() -> None:
    with pytest.raises(ValueError, match=r"no parser .* 'gpt'; known: official, vcd"):
        check_parser("gpt")
