"""Methods by name and in their text form."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest

from regard import mllm
from regard.mllm.interventions import (
    INTERVENTIONS,
    build_intervention,
    describe,
    intervention_class,
    parse_intervention,
    parse_interventions,
)
from regard.mllm.session.edit import Intervention


@pytest.mark.parametrize("name", INTERVENTIONS)
def test_every_name_of_the_table_is_a_method_of_that_name(name: str) -> None:
    method = build_intervention(name)
    assert isinstance(method, Intervention)
    assert method.name == name
    assert describe(method) == name
    assert parse_intervention(name) == method


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("vhr:alpha=1.5", {"alpha": 1.5}),
        ("vhr:alpha=.5,layers=1,-4:", {"alpha": 0.5, "layers": "1,-4:"}),
        ("vhr:layers=2", {"layers": "2"}),
        ("vhr:layers=[0,-1]", {"layers": (0, -1)}),
        ('vhr:layers="all,0"', {"layers": "all,0"}),
        ("vhr:layers='1:30'", {"layers": "1:30"}),
        (" vhr : squared = True , deviation = sample ", {"squared": True, "deviation": "sample"}),
        ("vhr:outliers=false,alpha=1e1", {"outliers": False, "alpha": 10.0}),
    ],
)
def test_options_are_read_as_they_are_meant(text: str, options: dict[str, Any]) -> None:
    method = parse_intervention(text)
    assert method == build_intervention("vhr", options)
    for key, value in options.items():
        assert getattr(method, key) == value


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("var,vhr", ["var", "vhr"]),
        ("vhr:alpha=3,layers=1,-4:,pai:alpha=0.3,gamma=1,var", ["vhr", "pai", "var"]),
        ("var:dimensions=[3,5],threshold=4,vhr", ["var", "vhr"]),
        (["var:dimensions=[3,5]", "pai"], ["var", "pai"]),
        ("regard.mllm.interventions.pai:PAI:alpha=0.4,vhr", ["pai", "vhr"]),
    ],
)
def test_commas_join_methods_and_what_describes_them_reads_back(text: str | list[str], names: list[str]) -> None:
    methods = parse_interventions(text)
    assert [method.name for method in methods] == names
    again = ",".join(map(describe, methods))
    assert parse_interventions(again) == methods
    assert ",".join(map(describe, parse_interventions(again))) == again


@pytest.mark.parametrize("layers", ["2", "all,0", "1,-4:", " 2:", "", "null", "0.5", 'a"b', "a'b", "[1", (1, 2), ()])
def test_any_value_survives_its_text_form(layers: Any) -> None:
    method = build_intervention("vhr", {"layers": layers})
    assert parse_intervention(describe(method)) == method


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("vrh", "did you mean 'vhr'?"),
        ("VAR", "did you mean 'var'?"),
        ("nothing_like_it", "in all, see 'regard list'"),
        ("vhr:alhpa=2", "did you mean 'alpha'? Its options: alpha, layers"),
        ("vhr:alpha=-1", "alpha, which is above 0; got -1"),
        ("vhr:alpha=much", "takes alpha as a number; got 'much'"),
        ("vhr:alpha=1,5", "takes alpha as a number; got '1,5'"),
        ("vhr:alpha=1e999", "takes alpha as a number"),
        ("vhr:squared=1", "takes squared as true or false; got 1"),
        ("vhr:deviation=none", "population or sample"),
        ("var:transfer=1.5", "from 0 to 1"),
        ("var:dimensions=[1,x]", "takes dimensions as [a whole number, ...] or null"),
        ("vhr:alpha=1,alpha=2", "alpha of vhr is given twice"),
        ("vhr,vhr:alpha=3", "vhr is named twice"),
        ("vhr:layers=[1,2", "']' is missing at the end"),
        ("vhr:layers='1", "is missing at the end"),
        ("vhr:layers=1]", "closes nothing"),
        ("", "name:option=value"),
        ("vhr,", "name:option=value"),
        ("vhr:", "name:option=value"),
        ("vhr:alpha", "name:option=value"),
        ("vhr=2", "name:option=value"),
        ("alpha=2", "name:option=value"),
        ("no.such.module:Method", "cannot import the method"),
        ("regard.mllm.session.edit:Method", "cannot import the method"),
    ],
)
def test_a_mistake_is_named_with_what_would_do(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(hint)):
        parse_interventions(text)


def test_one_method_is_not_several() -> None:
    with pytest.raises(ValueError, match="names 2"):
        parse_intervention("var,vhr")


def test_the_table_and_its_grammar_need_no_torch() -> None:
    check = (
        "import sys, regard.mllm, regard.mllm.interventions as i\n"
        "from regard.mllm import INTERVENTIONS\n"
        "try: i.parse_interventions('vrh:alpha=2')\n"
        "except ValueError: print('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_whatever_the_room_offers_is_there() -> None:
    assert all(getattr(mllm, name) is not None for name in mllm.__all__)
    classes = {intervention_class(name).__name__ for name in INTERVENTIONS}
    assert classes <= set(mllm.__all__)
