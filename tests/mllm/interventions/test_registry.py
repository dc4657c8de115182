"""Interventions by name and in their text form."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from typing import Any

import pytest

from regard import mllm
from regard.mllm.interventions import (
    INTERVENTIONS,
    build_intervention,
    check_interventions,
    describe,
    intervention_class,
    parse_intervention,
    parse_interventions,
)
from regard.mllm.option_grammar import _declared_options
from regard.mllm.session.contract import Intervention


@pytest.mark.parametrize("name", INTERVENTIONS)
def test_every_name_of_the_table_is_an_intervention_of_that_name(name: str) -> None:
    intervention = build_intervention(name)
    assert isinstance(intervention, Intervention)
    assert intervention.name == name
    assert describe(intervention) == name
    assert parse_intervention(name) == intervention


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("vhr(alpha=1.5)", {"alpha": 1.5}),
        ('vhr(alpha=.5, layers="1,-4:")', {"alpha": 0.5, "layers": "1,-4:"}),
        ("vhr(layers=2)", {"layers": "2"}),
        ("vhr(layers=[0, -1])", {"layers": (0, -1)}),
        (" vhr ( squared = True , std = 'sample' ) ", {"squared": True, "std": "sample"}),
        ("vhr(outliers=False, alpha=1e1)", {"outliers": False, "alpha": 10.0}),
        ("vhr()", {}),
        ("vhr:alpha=.5,layers=1,-4:", {"alpha": 0.5, "layers": "1,-4:"}),
        ("vhr:layers=[0,-1]", {"layers": (0, -1)}),
        ("vhr:layers='1:30'", {"layers": "1:30"}),
        (" vhr : squared = True , std = sample ", {"squared": True, "std": "sample"}),
        ("vhr:outliers=false,alpha=1e1", {"outliers": False, "alpha": 10.0}),
    ],
)
def test_options_are_parsed_in_both_forms(text: str, options: dict[str, Any]) -> None:
    check_interventions(text)
    assert parse_intervention(text) == build_intervention("vhr", options)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("var,vhr", ["var", "vhr"]),
        ('vhr(alpha=3, layers="1,-4:"), pai(alpha=0.3, gamma=1), var', ["vhr", "pai", "var"]),
        ("vhr:alpha=3,layers=1,-4:,pai(alpha=0.3),var:threshold=4", ["vhr", "pai", "var"]),
        (["var(dimensions=[3, 5])", "pai"], ["var", "pai"]),
        ("regard.mllm.interventions.pai:PAI(alpha=0.4), vhr", ["pai", "vhr"]),
        ("regard.mllm.interventions.pai:PAI:alpha=0.4,vhr", ["pai", "vhr"]),
    ],
)
def test_commas_separate_interventions_and_their_description_parses_back(
    text: str | list[str], names: list[str]
) -> None:
    interventions = parse_interventions(text)
    assert [one.name for one in interventions] == names
    assert parse_interventions(describe(interventions)) == interventions


@pytest.mark.parametrize("layers", ["2", "all,0", "1,-4:", " 2:", "", "null", "0.5", 'a"b', "a'b", "[1", (1, 2), ()])
def test_any_value_survives_its_text_form(layers: Any) -> None:
    intervention = build_intervention("vhr", {"layers": layers})
    assert parse_intervention(describe(intervention)) == intervention


EARLY = [
    ("vrh", "did you mean 'vhr'?"),
    ("VAR", "did you mean 'var'?"),
    ("nothing_like_it", "in all, see 'regard list'"),
    ("vhr(alhpa=2)", "did you mean 'alpha'? Known: alpha, layers"),
    ("vhr(alpha='much')", "alpha of the intervention vhr must be a number; got 'much'"),
    ("vhr(alpha=1e999)", "must be a number"),
    ("vhr(squared=1)", "squared of the intervention vhr must be True or False; got 1"),
    ("vhr(std=None)", "population or sample"),
    ("vhr(std=sample)", "std=sample of vhr is not a Python literal; quote text"),
    ("var(dimensions=[1, 'x'])", "must be [an integer, ...] or None"),
    ("vhr(1.5)", "the options of vhr need names: vhr(option=value)"),
    ("vhr(alpha=1, alpha=2)", "'alpha' of vhr is given twice"),
    ("vhr(alpha=)", "cannot parse vhr(alpha=)"),
    ("vhr(alpha=1", "')' is missing at the end"),
    ("vhr(alpha=1))", "closes nothing"),
    ("vhr(alpha=1), 2", "cannot parse '2'"),
    ("vhr:alpha=1,5", "must be a number; got '1,5'"),
    ("vhr:alpha=1,alpha=2", "'alpha' of vhr is given twice"),
    ("vhr,vhr(alpha=3)", "vhr is named twice"),
    ("vhr:layers='1", "is missing at the end"),
    *((text, "NAME(option=value, option=value)") for text in ("", "vhr,", "vhr:", "vhr:alpha", "vhr=2", "alpha=2")),
]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        *EARLY,
        ("vhr(alpha=-1)", "alpha, which is above 0; got -1"),
        ("var(transfer=1.5)", "from 0 to 1"),
        ("pai,regard.mllm.interventions.pai:PAI", "two interventions are called 'pai'"),
        ("no.such.module:Fix", "cannot import the intervention"),
        ("regard.mllm.session.contract:Fix", "cannot import the intervention"),
    ],
)
def test_a_mistake_is_named_with_what_is_allowed(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(hint)):
        parse_interventions(text)


@pytest.mark.parametrize(("text", "hint"), EARLY)
def test_most_mistakes_are_found_without_importing_the_classes(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(hint)):
        check_interventions(text)


@pytest.mark.parametrize("name", INTERVENTIONS)
def test_the_source_declares_the_options_that_the_class_has(name: str) -> None:
    cls = intervention_class(name)
    known = [field.name for field in dataclasses.fields(cls) if field.init and field.compare]
    assert list(_declared_options(f"regard.mllm.interventions.{INTERVENTIONS[name]}")) == known


def test_one_intervention_is_not_several() -> None:
    with pytest.raises(ValueError, match="names 2"):
        parse_intervention("var,vhr")


def test_the_table_and_its_grammar_need_no_torch() -> None:
    check = (
        "import sys, regard.mllm, regard.mllm.interventions as i\n"
        "from regard.mllm import INTERVENTIONS\n"
        "i.check_interventions('vhr(alpha=2), agla, my.module:Fix')\n"
        "print('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_all_exported_names_exist() -> None:
    assert all(getattr(mllm, name) is not None for name in mllm.__all__)
    classes = {intervention_class(name).__name__ for name in INTERVENTIONS}
    assert classes <= set(mllm.__all__)
